"""The demo's verdict: good for a run as it should be, and each way to break a promise is found."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kafetrain.cli.demo.events import Event, Kind
from kafetrain.cli.demo.scenario import MAX_RETRIES, End, Order, Scenario, Trouble, plan
from kafetrain.cli.demo.verdict import Verdict, judge

Change = Callable[[list[Event]], list[Event]]


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return plan(seed=1, customers=8, orders=64, duration_s=6.0, partitions=4, concurrency=4)


@pytest.fixture
def events(scenario: Scenario) -> list[Event]:
    """A run in which everything is as it should be: each order ends before the next is produced."""
    found: list[Event] = []

    def happens(kind: Kind, order: Order) -> None:
        found.append(Event(len(found) / 1000, kind, order.number))

    for order in scenario.orders:
        happens(Kind.PRODUCED, order)
        for run in range(order.runs):
            happens(Kind.STARTED, order)
            happens(Kind.FAILED if order.end is not End.SUCCEEDED or run < order.failures else Kind.SUCCEEDED, order)
        if order.end is End.DEAD:
            happens(Kind.DEAD_LETTERED, order)
        elif order.end is End.PARKED:
            happens(Kind.PARKED, order)
    return found


def orders_of(scenario: Scenario, trouble: Trouble) -> list[Order]:
    customer = next(customer for customer in scenario.customers if customer.trouble is trouble)
    return [order for order in scenario.orders if order.customer == customer]


def without(events: list[Event], order: Order, *kinds: Kind) -> list[Event]:
    return [event for event in events if event.order != order.number or event.kind not in kinds]


def broken(verdict: Verdict) -> dict[str, tuple[str, ...]]:
    return {check.promise: check.findings for check in verdict.checks if not check.kept}


class TestGood:
    def test_a_run_as_it_should_be_is_good(self, scenario: Scenario, events: list[Event]) -> None:
        verdict = judge(scenario.orders, events)
        assert broken(verdict) == {}
        assert verdict.good

    def test_it_says_what_it_looked_at(self, scenario: Scenario, events: list[Event]) -> None:
        ended, overtaken, planned = judge(scenario.orders, events).checks
        parked = sum(order.end is End.PARKED for order in scenario.orders)
        assert ended.summary == f"{62 - parked} succeeded, 2 dead-lettered, {parked} parked, of 64"
        starts = sum(order.runs for order in scenario.orders)
        assert overtaken.summary == f"{starts} starts, 8 customers"
        assert planned.summary == f"{starts} runs, 8 of them failed"

    def test_a_run_that_was_repeated_is_told_and_breaks_nothing(self, scenario: Scenario, events: list[Event]) -> None:
        # At least once: a crash may have an order run again, after it succeeded and before the next one runs.
        order = orders_of(scenario, Trouble.NONE)[0]
        again = [event for event in events if event.order == order.number and event.kind is not Kind.PRODUCED]
        at = events.index(again[-1])
        verdict = judge(scenario.orders, events[: at + 1] + again + events[at + 1 :])
        assert verdict.good
        assert verdict.checks[2].summary.endswith(", 1 repeated")


class TestEnds:
    @pytest.mark.parametrize("trouble", Trouble)
    def test_an_order_that_was_lost_is_found(self, scenario: Scenario, events: list[Event], trouble: Trouble) -> None:
        last = orders_of(scenario, trouble)[-1]
        left = without(events, last, Kind.SUCCEEDED, Kind.PARKED)
        assert broken(judge(scenario.orders, left)) == {
            "every order ended": (f"order {last.number} of {last.customer.name} has no end",)
        }

    def test_an_order_that_was_never_produced_is_lost(self, scenario: Scenario, events: list[Event]) -> None:
        last = orders_of(scenario, Trouble.NONE)[-1]
        left = without(events, last, *Kind)
        assert list(broken(judge(scenario.orders, left))) == ["every order ended"]

    def test_nothing_at_all_is_bad(self, scenario: Scenario) -> None:
        verdict = judge(scenario.orders, [])
        assert not verdict.good
        assert len(verdict.checks[0].findings) == 64
        assert verdict.healthy.median_s is None


class TestOrder:
    def test_a_start_before_the_earlier_one_succeeded_is_found(self, scenario: Scenario, events: list[Event]) -> None:
        first, second = orders_of(scenario, Trouble.TWICE)[:2]
        moved = [event for event in events if event.order == second.number]
        others = [event for event in events if event.order != second.number]
        at = next(i for i, event in enumerate(others) if (event.order, event.kind) == (first.number, Kind.FAILED))
        findings = broken(judge(scenario.orders, others[: at + 1] + moved + others[at + 1 :]))
        assert list(findings) == ["no order was overtaken"]
        (finding,) = findings["no order was overtaken"]
        assert finding.startswith(f"order {second.number} of Ben was started at")
        assert finding.endswith(f"before order {first.number} had succeeded")

    def test_a_start_while_the_earlier_one_runs_is_found(self, scenario: Scenario, events: list[Event]) -> None:
        first, second = orders_of(scenario, Trouble.NONE)[:2]
        end = next(event for event in events if (event.order, event.kind) == (first.number, Kind.SUCCEEDED))
        rest = [event for event in events if event is not end]
        at = next(i for i, event in enumerate(rest) if (event.order, event.kind) == (second.number, Kind.STARTED))
        findings = broken(judge(scenario.orders, [*rest[: at + 1], end, *rest[at + 1 :]]))
        assert list(findings) == ["no order was overtaken"]

    @pytest.mark.parametrize("trouble", [Trouble.EXHAUSTED, Trouble.NOT_RETRIABLE])
    def test_a_start_behind_a_dead_one_is_found(
        self, scenario: Scenario, events: list[Event], trouble: Trouble
    ) -> None:
        dead, follower = orders_of(scenario, trouble)[1:3]
        assert (dead.end, follower.end) == (End.DEAD, End.PARKED)
        findings = broken(judge(scenario.orders, [*events, Event(99.0, Kind.STARTED, follower.number)]))
        assert findings["no order was overtaken"] == (
            f"order {follower.number} of {dead.customer.name} was started at 99.000 s, "
            f"before order {dead.number} had succeeded",
        )

    def test_orders_of_others_may_run_meanwhile(self, scenario: Scenario, events: list[Event]) -> None:
        troubled = orders_of(scenario, Trouble.TWICE)
        numbers = {order.number for order in troubled}
        of_them = [event for event in events if event.order in numbers]
        of_others = [event for event in events if event.order not in numbers]
        at = of_them.index(next(event for event in of_them if event.kind is Kind.FAILED))
        assert judge(scenario.orders, of_them[: at + 1] + of_others + of_them[at + 1 :]).good


class TestPlan:
    def test_an_order_that_succeeded_and_died_is_found(self, scenario: Scenario, events: list[Event]) -> None:
        order = orders_of(scenario, Trouble.ONCE)[1]
        findings = broken(judge(scenario.orders, [*events, Event(99.0, Kind.DEAD_LETTERED, order.number)]))
        assert findings == {
            "each ended as it had to": (f"order {order.number} of Ada has several ends: dead-lettered, succeeded",)
        }

    def test_an_order_that_was_parked_without_need_is_found(self, scenario: Scenario, events: list[Event]) -> None:
        order = orders_of(scenario, Trouble.NONE)[-1]
        left = without(events, order, Kind.STARTED, Kind.SUCCEEDED)
        findings = broken(judge(scenario.orders, [*left, Event(99.0, Kind.PARKED, order.number)]))
        name = f"order {order.number} of {order.customer.name}"
        assert findings == {"each ended as it had to": (f"{name} ended as parked, and had to end as succeeded",)}

    def test_an_attempt_that_was_counted_and_never_ran_is_found(self, scenario: Scenario, events: list[Event]) -> None:
        order = next(order for order in orders_of(scenario, Trouble.EXHAUSTED) if order.end is End.DEAD)
        start = next(event for event in events if (event.order, event.kind) == (order.number, Kind.STARTED))
        left = [event for event in events if event is not start]
        findings = broken(judge(scenario.orders, left))
        assert findings == {
            "each ended as it had to": (
                f"order {order.number} of Carla ran {MAX_RETRIES} times, and had to run {MAX_RETRIES + 1} times",
            )
        }


class TestWaits:
    def test_they_are_from_produced_to_the_start_of_the_last_run(self, scenario: Scenario) -> None:
        healthy = orders_of(scenario, Trouble.NONE)[:3]
        failing = orders_of(scenario, Trouble.ONCE)[1]
        events = [Event(1.0, Kind.PRODUCED, order.number) for order in (*healthy, failing)]
        events += [Event(1.0 + 0.1 * i, Kind.STARTED, order.number) for i, order in enumerate(healthy)]
        events += [Event(1.5, Kind.STARTED, failing.number), Event(3.0, Kind.STARTED, failing.number)]
        verdict = judge(scenario.orders, events)
        assert verdict.healthy.customers == 4
        assert verdict.healthy.median_s == pytest.approx(0.1)
        assert verdict.healthy.p99_s == pytest.approx(0.2)
        assert verdict.failing.customers == 4
        assert verdict.failing.median_s == pytest.approx(2.0)
