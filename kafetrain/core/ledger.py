"""Offset ledger: how far one partition may be committed.

Kafka keeps one position per partition, while keys end in any order. The ledger stores what is open, and what is
complete behind it: memory follows the work in flight. Pure, no lock: one thread owns it. Amortised O(1) a record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice

__all__ = ["Ledger"]


class Ledger:
    """`next_offset` is the position to commit: every record below it is complete, for good."""

    def __init__(self, next_offset: int) -> None:
        self.next_offset = next_offset
        self._begun: deque[int] = deque()  # in offset order
        self._complete: set[int] = set()  # ended out of turn

    @property
    def open_count(self) -> int:
        """Records begun and not complete."""
        return len(self._begun) - len(self._complete)

    def begin(self, offset: int) -> None:
        """A record was read. Offsets rise from call to call."""
        self._begun.append(offset)

    def begin_all(self, offsets: Iterable[int]) -> None:
        """As `begin`, for a batch."""
        self._begun.extend(offsets)

    def complete(self, offset: int) -> int:
        """Mark a begun offset, any number of times; return the position to commit."""
        if offset >= self.next_offset:
            self._complete.add(offset)
        return self._advance()

    def complete_all(self, offsets: list[int]) -> int:
        """As `complete`, for many begun offsets, each at or above `next_offset`."""
        begun, count = self._begun, len(offsets)
        if not self._complete and list(islice(begun, count)) == offsets:
            # Nothing ended out of turn: the healthy path, without a look at each.
            for _ in offsets:
                begun.popleft()
            if offsets:
                self.next_offset = offsets[-1] + 1
            return self.next_offset
        self._complete.update(offsets)
        return self._advance()

    def _advance(self) -> int:
        begun, complete = self._begun, self._complete
        last = None
        while begun and begun[0] in complete:
            last = begun.popleft()
            complete.remove(last)
        if last is not None:
            self.next_offset = last + 1
        return self.next_offset
