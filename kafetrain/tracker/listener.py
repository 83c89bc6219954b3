"""A rebalance listener for a consumer of one's own: it notes what changed, and returns at once.

It must: kafka-python calls listeners on the thread that also sends the heartbeats. The waiting for a new partition's
locks happens in the first tracker call for one of its records, in the caller's own thread.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from kafetrain.tracker.state import Side, TrackerState

__all__ = ["NotingListener"]


class NotingListener:
    """Has the methods of the listeners of kafka-python and aiokafka. Any thread; never blocks for long, never raises.

    For a consumer of source topics, of retry topics, or of both; partitions of other topics are ignored.
    """

    def __init__(self, state: TrackerState) -> None:
        self._state = state

    def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        """Their locks are restored from now on."""
        for side, topic, partitions in self._split(assigned):
            self._state.claim(side, self._state.topics[topic], partitions, set_start=side is Side.SOURCE)

    def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        """A redirect that is still under way for one of them ends with `PartitionLostError` at its next write."""
        for side, topic, partitions in self._split(revoked):
            self._state.release(side, self._state.topics[topic], partitions)

    def on_partitions_lost(self, lost: Iterable[Any]) -> None:
        self.on_partitions_revoked(lost)

    def _split(self, partitions: Iterable[Any]) -> list[tuple[Side, str, list[int]]]:
        found: defaultdict[tuple[Side, str], list[int]] = defaultdict(list)
        for place in partitions:
            if place.topic in self._state.topics:
                found[Side.SOURCE, place.topic].append(place.partition)
            elif (topic := self._state.by_retry_topic.get(place.topic)) is not None:
                found[Side.RETRY, topic.names.source].append(place.partition)
        return [(side, topic, numbers) for (side, topic), numbers in found.items()]
