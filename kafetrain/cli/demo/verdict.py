"""The verdict: what was promised, checked against what happened. Pure: events in, findings out."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kafetrain.cli.demo.events import Event, Kind
from kafetrain.cli.demo.scenario import End, Order

__all__ = ["Check", "Verdict", "Waits", "judge"]

_ENDS = {Kind.SUCCEEDED: End.SUCCEEDED, Kind.DEAD_LETTERED: End.DEAD, Kind.PARKED: End.PARKED}


@dataclass(frozen=True)
class Check:
    """One promise. `findings`: what broke it, empty where it was kept. `summary`: what was looked at."""

    promise: str
    summary: str
    findings: tuple[str, ...] = ()

    @property
    def kept(self) -> bool:
        return not self.findings


@dataclass(frozen=True)
class Waits:
    """How long the orders of some customers waited from being produced until the start of the run that ended them."""

    customers: int
    median_s: float | None
    p99_s: float | None

    @classmethod
    def of(cls, customers: int, waits_s: Iterable[float]) -> Waits:
        ordered = sorted(waits_s)
        return cls(customers, _percentile(ordered, 50), _percentile(ordered, 99))


@dataclass(frozen=True)
class Verdict:
    checks: tuple[Check, ...]
    healthy: Waits
    failing: Waits

    @property
    def good(self) -> bool:
        return all(check.kept for check in self.checks)


def judge(orders: Sequence[Order], events: Sequence[Event]) -> Verdict:
    """`orders`: all that were to be produced. `events`: in the order in which they happened."""
    by_number = {order.number: order for order in orders}
    ends: defaultdict[int, list[End]] = defaultdict(list)
    for event in events:
        if event.kind in _ENDS:
            ends[event.order].append(_ENDS[event.kind])
    return Verdict(
        (_all_ended(orders, ends), _none_overtaken(by_number, events), _as_planned(orders, ends, events)),
        *_waits(orders, by_number, events),
    )


def _all_ended(orders: Sequence[Order], ends: dict[int, list[End]]) -> Check:
    lost = [f"order {o.number} of {o.customer.name} has no end" for o in orders if not ends.get(o.number)]
    counts = Counter(found[0] for found in ends.values())
    summary = ", ".join(f"{counts[end]} {end.value}" for end in End)
    return Check("every order ended", f"{summary}, of {len(orders)}", tuple(lost))


def _none_overtaken(by_number: dict[int, Order], events: Sequence[Event]) -> Check:
    """No order is started before every earlier one of its customer has succeeded.

    After a dead letter none is: here nobody releases the key.
    """
    open_numbers: defaultdict[str, set[int]] = defaultdict(set)
    for order in by_number.values():
        open_numbers[order.customer.name].add(order.number)
    starts, findings = 0, []
    for event in events:
        order = by_number[event.order]
        waiting = open_numbers[order.customer.name]
        if event.kind is Kind.STARTED:
            starts += 1
            first = min(waiting, default=order.number)
            if first < order.number:
                findings.append(
                    f"order {order.number} of {order.customer.name} was started at {event.at_s:.3f} s, "
                    f"before order {first} had succeeded"
                )
        elif event.kind is Kind.SUCCEEDED:
            waiting.discard(order.number)
    return Check("no order was overtaken", f"{starts} starts, {len(open_numbers)} customers", tuple(findings))


def _as_planned(orders: Sequence[Order], ends: dict[int, list[End]], events: Sequence[Event]) -> Check:
    """Each order ended once, as the scenario had it, and no attempt was counted that did not run."""
    runs = Counter(event.order for event in events if event.kind is Kind.STARTED)
    findings, repeated = [], 0
    for order in orders:
        name, found = f"order {order.number} of {order.customer.name}", set(ends.get(order.number, ()))
        if len(found) > 1:
            findings.append(f"{name} has several ends: {', '.join(sorted(end.value for end in found))}")
        elif found and found != {order.end}:
            findings.append(f"{name} ended as {found.pop().value}, and had to end as {order.end.value}")
        elif found and runs[order.number] < order.runs:
            findings.append(f"{name} ran {_times(runs[order.number])}, and had to run {_times(order.runs)}")
        else:
            repeated += max(0, runs[order.number] - order.runs)
    failed = sum(event.kind is Kind.FAILED for event in events)
    summary = f"{sum(runs.values())} runs, {failed} of them failed"
    if repeated:  # at least once: no promise is broken
        summary += f", {repeated} repeated"
    return Check("each ended as it had to", summary, tuple(findings))


def _waits(orders: Sequence[Order], by_number: dict[int, Order], events: Sequence[Event]) -> tuple[Waits, Waits]:
    produced: dict[int, float] = {}
    started: dict[int, float] = {}
    for event in events:
        if event.kind is Kind.PRODUCED:
            produced[event.order] = event.at_s
        elif event.kind is Kind.STARTED:
            started[event.order] = event.at_s
    waits: dict[bool, list[float]] = {True: [], False: []}
    for number in produced.keys() & started.keys():
        waits[by_number[number].customer.healthy].append(started[number] - produced[number])
    customers = {order.customer for order in orders}
    healthy = sum(customer.healthy for customer in customers)
    return Waits.of(healthy, waits[True]), Waits.of(len(customers) - healthy, waits[False])


def _percentile(ordered: Sequence[float], percent: int) -> float | None:
    """By nearest rank: a wait that somebody had."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else None


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
