"""Lanes: how many deliveries go to one destination at a time, and which is next.

What does not fit into a lane goes back to the store, to be due when the lane should have room for it. So a slow
destination fills its own lane, and not the workers.
"""

from __future__ import annotations

from collections import deque

from kafetrain.service.domain.breaker import Breaker
from kafetrain.service.ports.store import Claim

__all__ = ["Lane", "Lanes"]

FIRST_GUESS_S = 0.005
OVERBOOKED = 2
"""How many are told to come for each place. Too many go back once more; too few leave the lane idle."""

WEIGHT = 0.2
LEAST_DEFERRAL_S, MOST_DEFERRAL_S = 0.05, 60.0
NORMAL_EVERY = 4
KEPT_LANES = 10_000


class Lane:
    """Of one destination."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.running = 0
        self.breaker = Breaker()
        self._priority: deque[Claim] = deque()
        self._normal: deque[Claim] = deque()
        self._taken = 0
        self._seconds = FIRST_GUESS_S  # of one delivery, lately
        self._room_at = 0.0

    def is_free(self) -> bool:
        return self.running < self.concurrency

    def is_idle(self) -> bool:
        return not (self.running or self._priority or self._normal)

    def wait(self, claim: Claim) -> bool:
        """Let it wait in memory for its turn. False: as many wait already as may."""
        if len(self._priority) + len(self._normal) >= self.concurrency:
            return False
        (self._priority if claim.task.is_priority else self._normal).append(claim)
        return True

    def next(self) -> Claim | None:
        """Priority first, and every fourth time the others first."""
        self._taken += 1
        first, second = self._priority, self._normal
        if self._taken % NORMAL_EVERY == 0:
            first, second = second, first
        if first:
            return first.popleft()
        return second.popleft() if second else None

    def ended(self, seconds: float) -> None:
        self._seconds += WEIGHT * (seconds - self._seconds)

    def deferral(self, now: float) -> float:
        """Seconds until one more delivery may find room, after all those that were told a time before."""
        self._room_at = max(now, self._room_at) + self._seconds / self.concurrency / OVERBOOKED
        if self._room_at > now + MOST_DEFERRAL_S:
            self._room_at = now + MOST_DEFERRAL_S / 2  # those told before are back by then, some of them
        return max(self._room_at - now, LEAST_DEFERRAL_S)


class Lanes:
    """By name. Idle ones are forgotten when there are many."""

    def __init__(self) -> None:
        self._lanes: dict[str, Lane] = {}

    def get(self, name: str, concurrency: int) -> Lane:
        lane = self._lanes.get(name)
        if lane is None:
            if len(self._lanes) >= KEPT_LANES:
                self._lanes = {name: lane for name, lane in self._lanes.items() if not lane.is_idle()}
            lane = self._lanes[name] = Lane(concurrency)
        return lane

    def all(self) -> list[Lane]:
        return list(self._lanes.values())
