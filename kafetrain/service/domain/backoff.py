"""How long a task waits before its next delivery."""

from __future__ import annotations

import random as _random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = ["LONGEST_DELAY_S", "Backoff", "BackoffKind"]

BackoffKind = Literal["exponential", "linear", "constant"]

LONGEST_DELAY_S = 365 * 86_400.0
"""No wait is longer, whatever the numbers say: doubling overflows at some attempt."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """`kind` of growth, cut at `max_delay` seconds, spread by `jitter` (0.1: up to 10 % either side)."""

    kind: BackoffKind = "exponential"
    max_delay: float | None = None
    jitter: float = 0.0

    def delay(self, base: float, attempt: int, random: Callable[[], float] = _random.random) -> float:
        """Seconds before delivery `attempt` (from 1): base times 2^(attempt-1), times attempt, or base."""
        longest = LONGEST_DELAY_S if self.max_delay is None else min(self.max_delay, LONGEST_DELAY_S)
        if self.kind == "exponential":
            # 2^60 seconds is beyond any limit, and still a number.
            seconds = base * 2.0 ** min(attempt - 1, 60)
        elif self.kind == "linear":
            seconds = base * attempt
        else:
            seconds = base
        seconds = min(seconds, longest)
        if self.jitter:
            seconds = min(seconds * (1.0 + self.jitter * (2.0 * random() - 1.0)), longest)
        return max(seconds, 0.0)
