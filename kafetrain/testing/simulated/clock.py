"""Time in a test's hands."""

from __future__ import annotations

import threading
from datetime import timedelta

__all__ = ["SimulatedClock"]

BEGINNING_MS = 1_700_000_000_000


class SimulatedClock:
    """A `Clock` that stands still until it is told to go on. Any thread."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._ms = 0

    def monotonic(self) -> float:
        return self._ms / 1000

    def now_ms(self) -> int:
        return BEGINNING_MS + self._ms

    def advance(self, by: timedelta | float) -> None:
        """Go on by a time, or by seconds; to the millisecond, and never back."""
        seconds = by.total_seconds() if isinstance(by, timedelta) else by
        if seconds < 0:
            raise ValueError(f"a clock does not go back: {seconds:g} s")
        with self._mutex:
            self._ms += round(seconds * 1000)
