"""A task: a message, where it goes, and how its deliveries have gone so far.

                 delivered ◀── success ──┐
                                         │
    scheduled ── due ──▶ delivery to its destination ── failure, retries left ──▶ scheduled, after a backoff
        ▲                                │
      replay                     failure, none left
        │                                ▼
    dead_lettered ◀─ success ── delivery to its dead destination ── failure ──▶ dead, tried again after a backoff

Content never changes after a task was accepted; progress does. Times are seconds since the epoch by the store's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from kafetrain.service.domain.backoff import Backoff

__all__ = ["Address", "Attempt", "State", "Task"]

Address = Mapping[str, "str | int"]
"""Where a message goes, in the words of its kind of destination: `host, port, topic`, or `url`."""

KEPT_ATTEMPTS = 50
"""Of a task's history; older ones are forgotten, so that a dead task does not grow for ever."""

LEAST_DEAD_DELAY_S, MOST_DEAD_DELAY_S = 1.0, 3600.0
"""Between deliveries to a dead destination, which have no end: however short or long the task's own delay is."""

MOST_RETRY_AFTER_S = 86_400.0


class State(str, Enum):
    """What becomes of a task next."""

    SCHEDULED = "scheduled"
    """It waits for a delivery, or one is under way."""
    DELIVERED = "delivered"
    DEAD_LETTERED = "dead_lettered"
    """Its retries are used up, and its dead destination has it."""
    DEAD = "dead"
    """Its retries are used up, and its dead destination does not take it; that is tried again, without an end."""

    @property
    def is_final(self) -> bool:
        return self in (State.DELIVERED, State.DEAD_LETTERED)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One delivery. `number` counts those to the destination; `to` is `destination` or `dead_destination`."""

    number: int
    to: str
    at: float
    seconds: float
    status: int | None = None
    error: str | None = None


@dataclass(slots=True)
class Task:
    """`max_retries` counts deliveries to the destination: 0 sends a task to its dead destination at once."""

    id: str
    source: str
    destination_type: str
    destination: Address
    dead_destination: Address
    max_retries: int
    base_delay: float
    client_id: str
    message_data: str
    is_priority: bool = False
    backoff: Backoff = field(default_factory=Backoff)

    state: State = State.SCHEDULED
    attempt: int = 0
    dead_attempt: int = 0
    created_at: float = 0.0
    due_at: float = 0.0
    """When the next delivery is due; of a final state: when it was reached."""
    attempts: tuple[Attempt, ...] = ()
    trace: str | None = None
    """The trace that accepted it, as a `traceparent` header has it."""

    def increment_attempt(self) -> None:
        """A delivery to the destination begins."""
        self.attempt += 1

    def has_retries_left(self) -> bool:
        return self.attempt < self.max_retries

    def next_retry_delay(self) -> float:
        """Seconds from a failure (or from acceptance) to the next delivery."""
        if not self.has_retries_left():
            return 0.0  # the dead destination has nothing to wait for
        return self.backoff.delay(self.base_delay, self.attempt + 1)

    def key(self) -> str:
        """Of the message, the same whenever the same delivery is repeated after a crash."""
        return f"{self.id}|{self.attempt}"

    def accept(self, now: float) -> None:
        """It is new: schedule its first delivery."""
        self.created_at = now
        self.due_at = now + self.next_retry_delay()

    def succeeded(self, attempt: Attempt, now: float) -> None:
        self._remember(attempt)
        self.state = State.DELIVERED if attempt.to == "destination" else State.DEAD_LETTERED
        self.due_at = now

    def failed(self, attempt: Attempt, now: float, retry_after: float | None = None) -> None:
        """`retry_after`: seconds that the destination asked for; a day at most is granted."""
        self._remember(attempt)
        if attempt.to == "destination":
            delay = self.next_retry_delay()
            asked = retry_after if self.has_retries_left() else None
        else:
            self.state = State.DEAD
            self.dead_attempt += 1
            own = self.backoff.delay(self.base_delay, self.dead_attempt)
            delay, asked = min(max(own, LEAST_DEAD_DELAY_S), MOST_DEAD_DELAY_S), retry_after
        self.due_at = now + max(delay, min(asked or 0.0, MOST_RETRY_AFTER_S))

    def hurry(self, now: float) -> None:
        """Make its next delivery due. Raises `ValueError` where none will come."""
        if self.state.is_final:
            raise ValueError(f"task {self.id} is {self.state.value}: there is no delivery to hurry")
        self.due_at = now

    def replay(self, now: float) -> None:
        """Give a task that died all its retries again, the first of them due now. Raises `ValueError` otherwise."""
        if self.state not in (State.DEAD, State.DEAD_LETTERED):
            raise ValueError(f"task {self.id} is {self.state.value}: only dead tasks are replayed")
        self.state, self.attempt, self.dead_attempt, self.due_at = State.SCHEDULED, 0, 0, now

    def _remember(self, attempt: Attempt) -> None:
        self.attempts = (*self.attempts, attempt)[-KEPT_ATTEMPTS:]
