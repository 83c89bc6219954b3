"""The demo around its verdict: what it plans, what it shows, and what a user is told who cannot run it."""

from __future__ import annotations

import io
import sys
from datetime import datetime, timedelta, timezone

import pytest
from rich.console import Console
from typer.testing import CliRunner

from kafetrain import Lock, cli
from kafetrain.cli.demo.board import Snapshot, render
from kafetrain.cli.demo.events import Event, Kind, Recorder
from kafetrain.cli.demo.progress import Progress, Status
from kafetrain.cli.demo.report import print_verdict
from kafetrain.cli.demo.scenario import End, Scenario, Trouble, plan
from kafetrain.cli.demo.verdict import judge

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def scenario_of(customers: int = 12, orders: int = 150, seed: int = 7) -> Scenario:
    return plan(seed=seed, customers=customers, orders=orders, duration_s=6.0, partitions=4, concurrency=4)


class TestPlan:
    @pytest.mark.parametrize(("customers", "orders"), [(7, 28), (12, 150), (60, 5000)])
    @pytest.mark.parametrize("seed", [0, 7, 123])
    def test_every_trouble_occurs_and_most_customers_are_healthy(self, customers: int, orders: int, seed: int) -> None:
        scenario = scenario_of(customers, orders, seed)
        assert len({customer.key for customer in scenario.customers}) == customers
        assert {customer.trouble for customer in scenario.customers} == set(Trouble)
        if customers > 8:
            assert sum(customer.healthy for customer in scenario.customers) > customers / 2
        assert {order.end for order in scenario.orders} == set(End)
        assert [order.number for order in scenario.orders] == list(range(1, orders + 1))
        times = [order.at_s for order in scenario.orders]
        assert times == sorted(times)
        assert 0 <= times[0] <= times[-1] <= 6.0

    def test_troubled_and_healthy_customers_share_partitions(self) -> None:
        customers = scenario_of().customers
        troubled = {customer.partition for customer in customers if not customer.healthy}
        assert troubled == {customer.partition for customer in customers if customer.healthy} == {0, 1, 2, 3}

    def test_the_seed_decides(self) -> None:
        assert scenario_of(seed=1) == scenario_of(seed=1)
        assert scenario_of(seed=1) != scenario_of(seed=2)


class TestRecorder:
    def test_events_have_the_time_since_the_beginning(self) -> None:
        times = iter([100.0, 200.0, 201.5, 203.0])
        recorder = Recorder(lambda: next(times))
        recorder.begin()
        recorder.record(Kind.PRODUCED, 1)
        recorder.record(Kind.STARTED, 1)
        assert recorder.since(0) == [Event(1.5, Kind.PRODUCED, 1), Event(3.0, Kind.STARTED, 1)]
        assert recorder.since(1) == [Event(3.0, Kind.STARTED, 1)]


class TestBoard:
    def progress(self, scenario: Scenario) -> Progress:
        """Ben's first order waits for its third run, one is behind it; Carla's second is dead, one is parked."""
        ben, carla, emma = (
            [o.number for o in scenario.orders if o.customer.name == n] for n in ("Ben", "Carla", "Emma")
        )
        told = [(number, Kind.PRODUCED) for number in (*ben[:2], *carla[:3], *emma[:1])]
        told += [(ben[0], Kind.STARTED), (ben[0], Kind.FAILED), (ben[0], Kind.STARTED), (ben[0], Kind.FAILED)]
        told += [(carla[0], Kind.STARTED), (carla[0], Kind.SUCCEEDED), (carla[1], Kind.STARTED)]
        told += [(carla[1], Kind.FAILED), (carla[1], Kind.DEAD_LETTERED), (carla[2], Kind.PARKED)]
        told += [(emma[0], Kind.STARTED)]
        progress = Progress(scenario)
        self.lines = progress.take(Event(i / 10, kind, number, "X: no") for i, (number, kind) in enumerate(told))
        return progress

    def rows(self, *, width: int = 110, height: int = 40, unicode: bool = True, customers: int = 12) -> list[str]:
        progress = self.progress(scenario_of(customers, max(150, 10 * customers)))
        lock = Lock("t", 1, b"ben", "pending", "g/t/1/0", 2, 2, NOW + timedelta(seconds=1.5), NOW, "X", "no")
        snapshot = Snapshot("here", "orders come in", 1.7, NOW, progress, {b"ben": lock}, tuple(self.lines))
        encoding = "utf-8" if unicode else "ascii"
        sink = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        Console(file=sink, width=width, height=height, force_terminal=False).print(
            render(snapshot, width=width, height=height, unicode=unicode)
        )
        sink.seek(0)
        return sink.read().splitlines()

    def row(self, name: str, rows: list[str]) -> list[str]:
        return next(row for row in rows if row.startswith(name)).rstrip().split(maxsplit=3)

    def test_a_row_shows_what_waits_and_when_it_runs_next(self) -> None:
        number = next(o.number for o in scenario_of().orders if o.customer.name == "Ben")
        row = self.row("Ben", self.rows())
        assert row == ["Ben", "1", "↻○", f"order {number}: run 3 of 4 in 1.5 s, 1 behind it"]

    def test_a_row_shows_what_is_dead_and_what_is_parked(self) -> None:
        number = [o.number for o in scenario_of().orders if o.customer.name == "Carla"][1]
        row = self.row("Carla", self.rows())
        assert row[2:] == ["●✖◌", f"order {number} is dead, 1 parked behind it"]

    def test_the_numbers_are_the_legend(self) -> None:
        rows = self.rows()
        assert rows[1] == "  1.7 s  orders come in  6 of 150 produced"
        assert rows[2] == "○ 1 waiting  ▶ 1 running  ↻ 1 failed  ● 1 succeeded  ✖ 1 dead  ◌ 1 parked"

    def test_events_are_told_in_words(self) -> None:
        text = "\n".join(self.rows())
        assert "failed in run 2 of 4: X: no" in text
        assert "is dead after 1 run (X: no); what follows is parked" in text

    @pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 12), (200, 60)])
    @pytest.mark.parametrize("customers", [12, 60])
    @pytest.mark.parametrize("unicode", [True, False], ids=["unicode", "ascii"])
    def test_it_fits_the_terminal(self, width: int, height: int, customers: int, unicode: bool) -> None:
        rows = self.rows(width=width, height=height, customers=customers, unicode=unicode)
        assert len(rows) < height
        assert max(map(len, rows)) <= width
        assert "".join(rows).isascii() is not unicode

    def test_customers_that_do_not_fit_are_counted(self) -> None:
        assert any(row.startswith("+47 more") for row in self.rows(height=24, customers=60))

    def test_everything_produced_is_in_one_status(self) -> None:
        progress = self.progress(scenario_of())
        assert progress.counts.total() == len(progress.states) == 6
        assert progress.ended == 3
        assert progress.counts[Status.RUNNING] == 1
        assert not progress.all_ended


def test_a_broken_promise_is_printed_with_what_broke_it() -> None:
    sink = io.StringIO()
    print_verdict(judge(scenario_of().orders, []), Console(file=sink, width=100))
    lines = sink.getvalue().splitlines()
    assert lines[1].startswith("  BROKEN  every order ended")
    assert lines[2] == "          order 1 of Ben has no end"
    assert lines[12] == "          and 140 more"
    assert lines[-1] == "verdict: bad"


class TestUsage:
    def test_without_confluent_kafka_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "confluent_kafka", None)
        result = CliRunner().invoke(cli.app, ["demo", "--plain"])
        assert result.exit_code == 2
        assert result.stdout == ""
        assert "pip install 'kafetrain[demo]'" in result.stderr
        assert len(result.stderr.splitlines()) == 1

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--orders", "47"], "12 customers need at least 48 orders, not 47"),
            (["--brokers", "nowhere"], "'nowhere' has no port"),
            (["--customers", "3"], "--customers"),
            (["--duration", "0"], "--duration"),
        ],
    )
    def test_wrong_usage_is_said_before_anything_starts(self, arguments: list[str], message: str) -> None:
        result = CliRunner().invoke(cli.app, ["demo", *arguments])
        assert result.exit_code == 2
        assert result.stdout == ""
        assert message in result.stderr
