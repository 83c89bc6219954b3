"""When to leave a destination alone that cannot be reached.

Only what costs a worker its time counts: no connection, no answer in time. A destination that answers, even with an
error, is reachable. The last delivery of a task is always tried; so an open breaker kills no task that a destination
would have taken.
"""

from __future__ import annotations

__all__ = ["Breaker"]

FAILURES_TO_OPEN = 5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 30.0


class Breaker:
    """Of one destination. Open for 2 s after 5 failures in a row; one trial ends that, or doubles it, up to 30 s."""

    def __init__(self) -> None:
        self._failures = 0
        self._pause_s = FIRST_PAUSE_S
        self._open_until: float | None = None
        self.last_error = ""

    def allows(self, now: float) -> bool:
        """May a delivery be tried? After a pause True is said once: the one told so reports how it went."""
        if self._open_until is None:
            return True
        if now < self._open_until:
            return False
        self._open_until = now + self._pause_s
        return True

    def is_open(self, now: float) -> bool:
        return self._open_until is not None and now < self._open_until

    def reached(self) -> None:
        self._failures, self._pause_s, self._open_until = 0, FIRST_PAUSE_S, None

    def unreachable(self, now: float, error: str) -> None:
        self._failures += 1
        self.last_error = error
        if self._failures < FAILURES_TO_OPEN:
            return
        if self._failures > FAILURES_TO_OPEN:
            self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
        self._open_until = now + self._pause_s
