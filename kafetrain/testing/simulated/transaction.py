"""A transaction of another application, as readers meet it: records that come late or never, and markers."""

from __future__ import annotations

from kafetrain.record import TopicPartition
from kafetrain.testing.simulated.core import ClusterCore

__all__ = ["Transaction"]


class Transaction:
    """Records that are seen together, or never. Its end leaves a marker in each partition, which takes an offset."""

    def __init__(self, core: ClusterCore) -> None:
        self._core, self._number = core, core.number()
        self._places: set[TopicPartition] = set()

    def write(self, topic: str, key: bytes | None, value: bytes | None, *, partition: int = 0) -> int:
        """Returns the offset."""
        place = TopicPartition(topic, partition)
        with self._core.mutex:
            self._places.add(place)
            return self._core.log(place).append(key, value, (), self._core.clock.now_ms(), "", self._number)

    def commit(self) -> None:
        self._end(commit=True)

    def abort(self) -> None:
        self._end(commit=False)

    def _end(self, *, commit: bool) -> None:
        with self._core.mutex:
            for place in self._places:
                self._core.log(place).end_transaction(self._number, commit=commit)
        self._core.wake()
