"""A rebalance, carried from the client's thread to the loop that owns the consumer.

Listeners are called on the client's own thread, where nothing may block. They leave an event here; the loop takes it in
its next step, lets running work end, and answers with what to commit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from kafetrain.client.ports import Committed
from kafetrain.record import TopicPartition

__all__ = ["Assigned", "Handover", "Lost", "Rebalances"]


@dataclass(frozen=True, slots=True)
class Assigned:
    """These partitions are ours now."""

    partitions: frozenset[TopicPartition]


@dataclass(frozen=True, slots=True)
class Lost:
    """These are somebody else's already."""

    partitions: frozenset[TopicPartition]


@dataclass(slots=True)
class Handover:
    """These go as soon as it is answered."""

    partitions: frozenset[TopicPartition]
    answer: Mapping[TopicPartition, Committed] | None = field(default=None)
    """What to commit, once no work on them is under way. Written once, by the loop."""
    deadline: float | None = None
    """For the loop: when to stop waiting for running work (monotonic)."""


class Rebalances:
    """`RebalanceEvents` for a loop. The client's thread calls the events, the loop's thread `take` and `close`."""

    def __init__(self) -> None:
        self._events: SimpleQueue[Assigned | Lost | Handover] = SimpleQueue()
        self._closed = False

    def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        self._events.put(Assigned(partitions))

    def lost(self, partitions: frozenset[TopicPartition]) -> None:
        self._events.put(Lost(partitions))

    def revoking(
        self, partitions: frozenset[TopicPartition]
    ) -> Callable[[], Mapping[TopicPartition, Committed] | None]:
        handover = Handover(partitions)
        self._events.put(handover)
        # Closed: the loop has committed what was complete, and takes no event any more.
        return lambda: {} if self._closed else handover.answer

    def take(self) -> list[Assigned | Lost | Handover]:
        """What happened since the last call, in order."""
        taken: list[Assigned | Lost | Handover] = []
        try:
            while True:
                taken.append(self._events.get_nowait())
        except Empty:
            return taken

    def close(self) -> None:
        """The loop ends: answer every handover at once from now on."""
        self._closed = True
