"""Offset ledger: how far one partition may be committed.

Kafka keeps one position per partition, while keys end in any order. The ledger stores the complete offsets behind the
oldest open one as ranges: memory follows the gaps between them, not their number. Offsets that the log does not have
(compacted away, transaction markers) count as complete. Pure, no lock: one thread owns it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

__all__ = ["Ledger", "ranges_of"]


class Ledger:
    """`next_offset` is the position to commit: every record below it is complete, for good.

    Ranges are pairs of a first and a last offset, both included.
    """

    def __init__(self, next_offset: int) -> None:
        self.next_offset = next_offset
        self._end = next_offset  # all below has been read, or does not exist
        self._firsts: list[int] = []  # of complete ranges above `next_offset`: sorted, apart, never adjacent
        self._lasts: list[int] = []
        self._behind = 0  # offsets in them

    @property
    def open_count(self) -> int:
        """Records begun and not complete."""
        return self._end - self.next_offset - self._behind

    def begin(self, offset: int) -> None:
        """A record was read. Offsets rise from call to call."""
        missing_from, self._end = self._end, offset + 1
        if offset > missing_from:
            self.complete_range(missing_from, offset - 1)

    def begin_to(self, position: int) -> None:
        """Everything below `position` has been read: what is missing at the end does not exist either."""
        missing_from = self._end
        if position > missing_from:
            self._end = position
            self.complete_range(missing_from, position - 1)

    def begin_all(self, offsets: Sequence[int]) -> None:
        """As `begin`, for a batch."""
        if offsets and offsets[-1] - offsets[0] + 1 == len(offsets):
            self.begin(offsets[0])
            self._end = offsets[-1] + 1
        else:
            for offset in offsets:
                self.begin(offset)

    def complete(self, offset: int) -> int:
        """Mark a begun offset, any number of times; return the position to commit."""
        return self.complete_range(offset, offset)

    def complete_range(self, first: int, last: int) -> int:
        """As `complete`, for all begun offsets from `first` to `last`."""
        first = max(first, self.next_offset)
        if first > last:
            return self.next_offset
        firsts, lasts = self._firsts, self._lasts
        if not firsts and first == self.next_offset:  # nothing ended out of turn: the healthy path
            self.next_offset = last + 1
            return self.next_offset
        # The ranges that this one touches or overlaps become one with it.
        low, high = bisect_left(lasts, first - 1), bisect_right(firsts, last + 1)
        if low < high:
            first, last = min(first, firsts[low]), max(last, lasts[high - 1])
            self._behind -= sum(lasts[at] - firsts[at] + 1 for at in range(low, high))
        if first == self.next_offset:
            self.next_offset = last + 1
            del firsts[low:high], lasts[low:high]
        else:
            firsts[low:high], lasts[low:high] = [first], [last]
            self._behind += last - first + 1
        return self.next_offset

    def next_offset_with(self, completed: Iterable[int]) -> int:
        """Where `next_offset` would be, were these complete as well. Changes nothing."""
        copy = Ledger(self.next_offset)
        copy._end, copy._firsts, copy._lasts = self._end, self._firsts.copy(), self._lasts.copy()
        for first, last in ranges_of(set(completed)):
            copy.complete_range(first, last)
        return copy.next_offset


def ranges_of(offsets: Iterable[int]) -> list[tuple[int, int]]:
    """Offsets in any order, as ranges without gaps."""
    found: list[tuple[int, int]] = []
    for offset in sorted(offsets):
        if found and found[-1][1] + 1 == offset:
            found[-1] = (found[-1][0], offset)
        else:
            found.append((offset, offset))
    return found
