"""Time as something that is passed in: monotonic for waiting, wall clock for what is written down."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Any thread."""

    def monotonic(self) -> float:
        """Seconds that only go forward; their zero means nothing."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch, as headers and entries hold them."""


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        return time.monotonic()

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000
