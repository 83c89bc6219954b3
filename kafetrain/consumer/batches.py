"""What was dispatched together, and how far a worker has come with it."""

from __future__ import annotations

from collections.abc import Sequence

from kafetrain.record import Record

__all__ = ["Batch", "Run"]


class Batch:
    """Records of one partition that were dispatched together. The loop's thread looks at `offsets` alone: what a worker
    has had in hand is best freed by it."""

    __slots__ = ("_size_bytes", "offsets", "records")

    def __init__(self, records: Sequence[Record]) -> None:
        self.records, self.offsets = records, _offsets(records)
        self._size_bytes: int | None = None

    @property
    def size_bytes(self) -> int:
        """Of keys and values that are held here. Measured only where the records are still open later."""
        records = self.records
        if self._size_bytes is None or not records:
            self._size_bytes = sum([len(record.value or b"") + len(record.key or b"") for record in records])
        return self._size_bytes

    def let_go(self) -> None:
        """All are complete. Any thread, and freed on it."""
        self.records = ()


class Run:
    """Records of a batch that one worker completes in turn. It only moves `done` on; the loop's thread collects up to
    there."""

    __slots__ = ("batch", "begin", "done", "over")

    def __init__(self, batch: Batch, begin: int) -> None:
        self.batch, self.begin, self.done, self.over = batch, begin, begin, False

    def collect(self) -> tuple[int, int] | None:
        """The first and the last offset of what was completed since the last time."""
        if (end := self.done) == self.begin:
            return None
        offsets = self.batch.offsets
        found = offsets[self.begin], offsets[end - 1]
        self.begin = end
        return found


def _offsets(records: Sequence[Record]) -> Sequence[int]:
    first, last = records[0].offset, records[-1].offset
    if last - first + 1 == len(records):  # they rise, so there is no gap
        return range(first, last + 1)
    return [record.offset for record in records]
