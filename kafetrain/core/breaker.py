"""The breaker of one topic: counts keys that fail alike in a row, and lets single records through once it is open.

    closed ──(the last N different keys failed with one class of error, within the window)──> open
    open ──(a probe ended in any other way than with that class)──> closed

Times are seconds of a monotonic clock that is passed in. One caller at a time; only `is_open` and `counting` may be
read beside that, where it does no harm that they are old.
"""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum

__all__ = ["BreakerState", "Verdict"]

SLICE_S = 1.0
"""No record is told to wait for longer, nor than for the first probe: so a breaker that has closed is noticed soon."""


class Verdict(Enum):
    """What follows from the end of a run."""

    AS_IT_IS = "as it is"
    """It counts as what it was: a success, or a failure like any."""
    WAIT = "wait"
    """The record runs again in its place, and nothing is counted."""
    OPENED = "opened"
    """As WAIT; and this one opened the breaker."""
    CLOSED = "closed"
    """As AS_IT_IS; and this one closed the breaker."""


class BreakerState:
    """A key is whatever names one; `kind` is the class of an error that may be retried, None for all other ends."""

    def __init__(self, *, keys: int, window_s: float, probe_after_s: float, probe_at_most_s: float) -> None:
        self._keys, self._window_s = keys, window_s
        self._probe_after_s, self._probe_at_most_s = probe_after_s, probe_at_most_s
        self._slice_s = min(SLICE_S, probe_after_s)
        self.is_open = False
        self.counting = False
        """Closed, and the last run failed: the end of the next one matters."""
        self.kind: type | None = None
        """What the keys fail with that are counted, or that it opened for."""
        self.probes = 0
        """Since it opened."""
        self._failing: dict[Hashable, float] = {}  # when each key failed last, in this order
        self._probing = False
        self._wait_s = 0.0
        self._next_probe = 0.0
        self._last_probe: Hashable = None

    def ask(self, key: Hashable, now: float) -> float | None:
        """May a record of `key` run while it is open? None: yes, and its end must be told, `probe=True`.

        Else how many seconds it has to wait before it asks again. A key other than the last probe's is let through
        first: a record that can never succeed must not be the only one that is tried.
        """
        patience_s = self._slice_s if key == self._last_probe else 0.0
        if self._probing or now < self._next_probe + patience_s:
            return self.wait_s(now - patience_s)
        self._probing, self._last_probe = True, key
        self.probes += 1
        return None

    def wait_s(self, now: float) -> float:
        """Seconds until it is worth to ask, or to ask again."""
        return self._slice_s if self._probing else max(0.0, min(self._slice_s, self._next_probe - now))

    def ended(self, key: Hashable, kind: type | None, now: float, *, probe: bool = False) -> Verdict:
        """A run has ended. Only a probe's end counts while it is open: others began before it did."""
        if probe:
            return self._judge(key, kind, now)
        if self.is_open:
            return Verdict.WAIT if kind is self.kind else Verdict.AS_IT_IS
        if not self._count(key, kind, now):
            return Verdict.AS_IT_IS
        self.is_open, self.counting = True, False
        self.probes, self._last_probe = 0, None
        self._schedule(self._probe_after_s, now)
        return Verdict.OPENED

    def undecided(self, now: float) -> None:
        """A probe ended without an outcome (it asked for a pause, or was called off): the next one is as far away."""
        self._probing = False
        self._schedule(self._wait_s, now)

    def _judge(self, key: Hashable, kind: type | None, now: float) -> Verdict:
        self._probing = False
        if kind is self.kind:
            self._schedule(min(2 * self._wait_s, self._probe_at_most_s), now)
            return Verdict.WAIT
        self.is_open = False
        self._forget()
        self._count(key, kind, now)
        return Verdict.CLOSED

    def _count(self, key: Hashable, kind: type | None, now: float) -> bool:
        """Are these enough?"""
        if kind is not self.kind:
            self._forget()
        if kind is None:
            return False
        failing, self.kind, self.counting = self._failing, kind, True
        failing.pop(key, None)
        failing[key] = now
        while now - next(iter(failing.values())) > self._window_s:
            del failing[next(iter(failing))]
        return len(failing) >= self._keys

    def _forget(self) -> None:
        self._failing.clear()
        self.kind, self.counting = None, False

    def _schedule(self, wait_s: float, now: float) -> None:
        self._wait_s, self._next_probe = wait_s, now + wait_s
