"""A ledger for two threads: the loop completes offsets while a transaction asks how far it may commit."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from kafetrain.core.ledger import Ledger

__all__ = ["SharedLedger"]


class SharedLedger(Ledger):
    """As `Ledger`; any thread may ask `next_offset_with`."""

    def __init__(self, next_offset: int) -> None:
        super().__init__(next_offset)
        self._mutex = threading.RLock()  # nothing is called or taken inside

    def begin(self, offset: int) -> None:
        with self._mutex:
            super().begin(offset)

    def begin_to(self, position: int) -> None:
        with self._mutex:
            super().begin_to(position)

    def begin_all(self, offsets: Sequence[int]) -> None:
        with self._mutex:
            super().begin_all(offsets)

    def complete_range(self, first: int, last: int) -> int:
        with self._mutex:
            return super().complete_range(first, last)

    def next_offset_with(self, completed: Iterable[int]) -> int:
        with self._mutex:
            return super().next_offset_with(completed)
