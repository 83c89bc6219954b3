"""Where each order stands, folded from the events; and the events worth a line, in words."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from kafetrain.cli.demo.events import Event, Kind
from kafetrain.cli.demo.scenario import MAX_RETRIES, Customer, Order, Scenario

__all__ = ["Line", "OrderState", "Progress", "Status"]


class Status(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    FAILED = "failed, retried later"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    PARKED = "parked"

    @property
    def ended(self) -> bool:
        return self in (Status.SUCCEEDED, Status.DEAD, Status.PARKED)


_STATUS = {
    Kind.PRODUCED: Status.WAITING,
    Kind.STARTED: Status.RUNNING,
    Kind.SUCCEEDED: Status.SUCCEEDED,
    Kind.FAILED: Status.FAILED,
    Kind.DEAD_LETTERED: Status.DEAD,
    Kind.PARKED: Status.PARKED,
}


@dataclass(slots=True)
class OrderState:
    order: Order
    status: Status = Status.WAITING
    runs: int = 0
    failed_at_s: float = 0.0
    started_at_s: float = 0.0


@dataclass(frozen=True)
class Line:
    """Something worth telling. `kind` decides how it looks."""

    at_s: float
    customer: Customer
    kind: Kind
    text: str


@dataclass
class Progress:
    """One thread."""

    scenario: Scenario
    events: list[Event] = field(default_factory=list)
    states: dict[int, OrderState] = field(default_factory=dict)
    """Of what was produced, by number."""
    counts: Counter[Status] = field(default_factory=Counter)
    _by_customer: defaultdict[str, list[OrderState]] = field(default_factory=lambda: defaultdict(list))

    def of(self, customer: Customer) -> list[OrderState]:
        """The customer's orders, as they were produced."""
        return self._by_customer[customer.name]

    @property
    def ended(self) -> int:
        return sum(count for status, count in self.counts.items() if status.ended)

    @property
    def all_ended(self) -> bool:
        return self.ended == len(self.scenario.orders)

    def take(self, events: Iterable[Event]) -> list[Line]:
        """Go on by these events, and tell what is worth a line."""
        lines = []
        for event in events:
            self.events.append(event)
            order = self.scenario.by_number[event.order]
            state = self.states.get(order.number)
            if state is None:
                state = self.states[order.number] = OrderState(order)
                self.of(order.customer).append(state)
            else:
                self.counts[state.status] -= 1
            state.status = _STATUS[event.kind]
            self.counts[state.status] += 1
            if event.kind is Kind.STARTED:
                state.runs += 1
                state.started_at_s = event.at_s
            if (text := self._told(event, state)) is not None:
                lines.append(Line(event.at_s, order.customer, event.kind, text))
            if event.kind is Kind.FAILED:
                state.failed_at_s = event.at_s
        return lines

    def _told(self, event: Event, state: OrderState) -> str | None:
        number, runs = event.order, state.runs
        if event.kind is Kind.FAILED:
            return f"order {number} failed in run {runs} of {MAX_RETRIES + 1}: {event.detail}"
        if event.kind is Kind.STARTED and runs > 1:
            return f"order {number} runs again, {event.at_s - state.failed_at_s:.2f} s after it failed"
        if event.kind is Kind.SUCCEEDED and runs > 1:
            behind = sum(other.status is Status.WAITING for other in self.of(state.order.customer))
            waited = f"; {behind} that waited behind it may run now" if behind else ""
            return f"order {number} succeeded in run {runs}{waited}"
        if event.kind is Kind.DEAD_LETTERED:
            return f"order {number} is dead after {_times(runs)} ({event.detail}); what follows is parked"
        if event.kind is Kind.PARKED:
            return f"order {number} is parked behind the dead one"
        return None


def _times(runs: int) -> str:
    return "1 run" if runs == 1 else f"{runs} runs"
