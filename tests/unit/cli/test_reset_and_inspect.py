"""`kafetrain topics reset`, `topics forget` and `inspect` as commands: what they ask, print and return."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from kafetrain import cli
from kafetrain.cli import inspect, reset
from kafetrain.client.ports import ClientError
from kafetrain.operations.inspector import Inspector
from kafetrain.settings import Settings
from tests.unit.operations.test_reset import NEW, OLD, Orders

Run = Callable[..., Any]


@pytest.fixture
def cluster() -> Orders:
    orders = Orders()
    orders.register(0)
    orders.lock(3)
    orders.lock(4)
    orders.dead(9)
    return orders


@pytest.fixture
def run(cluster: Orders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs the command line on `cluster`, in an empty directory and environment. `answer`: typed, at a terminal."""
    for name in [name for name in os.environ if name.upper().startswith("KAFETRAIN_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    for module in (reset, inspect):
        monkeypatch.setattr(module, "connect", lambda settings: cluster)

    def invoke(*arguments: str, answer: str | None = None) -> Any:
        with monkeypatch.context() as patch:
            if answer is not None:
                patch.setattr(reset, "_is_terminal", lambda: True)
            return CliRunner().invoke(cli.app, list(arguments), input=answer)

    return invoke


RESET = ("topics", "reset", "orders", "--group", "billing")
FORGET = ("topics", "forget", "billing", "--topic", "orders")


@pytest.mark.parametrize("options", [(), ("--dead-letter", "--forget")])
def test_what_becomes_of_pending_records_must_be_said(run: Run, options: tuple[str, ...]) -> None:
    result = run(*RESET, *options, "--yes")
    assert result.exit_code == 2
    assert "--dead-letter moves them to the dead-letter topic, --forget drops them" in result.stderr


@pytest.mark.parametrize("command", [(*RESET, "--forget"), FORGET])
def test_without_a_terminal_and_without_yes_nothing_is_changed(
    run: Run, cluster: Orders, command: tuple[str, ...]
) -> None:
    before = cluster.contents()
    result = run(*command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "pass --yes" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert cluster.contents() == before


@pytest.mark.parametrize("command", [(*RESET, "--forget"), FORGET])
def test_an_answer_decides(run: Run, cluster: Orders, command: tuple[str, ...]) -> None:
    before = cluster.contents()
    result = run(*command, answer="n\n")
    assert result.exit_code == 1
    assert "nothing was changed" in result.stderr
    assert cluster.contents() == before
    assert run(*command, answer="y\n").exit_code == 0
    assert cluster.locks() == set()


def test_a_reset_says_what_happened_and_who_wanted_it(run: Run, cluster: Orders) -> None:
    result = run(*RESET, "--dead-letter", "--yes", "--by", "ada", "--reason-text", "moved")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "pending records: 2 dead-lettered, 0 dropped; dead ones forgotten: 1",
        "group billing can start on the new orders",
    ]
    assert "reset by ada" in result.stderr
    end = next(record for record in cluster.read("redirect-orders") if record.value is None)
    assert {("x-retry-by", b"ada"), ("x-retry-why", b"moved")} <= set(end.headers)
    again = run(*RESET, "--dead-letter")
    assert (again.exit_code, again.stderr) == (0, "")
    assert again.stdout == "group billing has no lock of a former orders: nothing to reset\n"


def test_a_reset_in_json(run: Run) -> None:
    data = json.loads(run(*RESET, "--forget", "--yes", "--json").stdout)
    assert (data["reset"], data["topic_id"], data["former_topic_ids"]) == (True, NEW, [OLD])
    assert (data["dead_lettered"], data["dropped"], data["dead_forgotten"]) == (0, 2, 1)
    assert json.loads(run(*RESET, "--forget", "--json").stdout)["reset"] is False


def test_members_are_told_before_anybody_is_asked(run: Run, cluster: Orders) -> None:
    cluster.members["billing"] = 1
    for command in ((*RESET, "--forget"), FORGET):
        result = run(*command)
        assert result.exit_code == 1
        assert "billing has 1 member: stop all instances" in result.stderr


def test_forgetting_says_what_is_lost_and_that_there_is_nothing_the_second_time(run: Run) -> None:
    asked = run(*FORGET)
    assert "orders 2 pending and 1 dead" in asked.stderr
    result = run(*FORGET, "--yes")
    assert result.stdout == (
        "orders: 2 pending records lost, 1 dead record forgotten, group billing is registered no longer\n"
    )
    assert run(*FORGET).stdout == "orders: nothing of group billing\n"
    (found,) = json.loads(run(*FORGET, "--json").stdout)["topics"]
    assert found["removed"] is False


def test_inspect_prints_json_and_without_a_terminal_a_table(run: Run) -> None:
    data = json.loads(run("inspect", "orders", "--group", "billing", "--json").stdout)
    assert (data["total"]["pending_records"], data["total"]["dead_keys"], data["due_keys"]) == (2, 1, 1)
    assert [lock["key"] for lock in data["due"]] == ["ada"]
    table = run("inspect", "orders", "--group", "billing")
    assert "due now or running: 1" in table.stdout
    assert "dead: 1" in table.stdout


@pytest.mark.parametrize("interval", ["soon", "1ms", "-1s"])
def test_an_interval_that_cannot_be_is_wrong_usage(run: Run, interval: str) -> None:
    result = run("inspect", "orders", "--group", "billing", "--interval", interval)
    assert result.exit_code == 2
    assert "--interval" in result.stderr


def test_the_live_view_outlives_a_cluster_that_does_not_answer_and_no_other_error(
    cluster: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([None, ClientError("timed out", retriable=True), None, ClientError("may not describe")])
    look = Inspector.look

    def scripted(inspector: Inspector) -> Any:
        if (error := next(looks)) is not None:
            raise error
        return look(inspector)

    monkeypatch.setattr(Inspector, "look", scripted)
    console = Console(force_terminal=True, width=140, height=30, file=StringIO())
    waits: list[float] = []
    with (
        Inspector(cluster, Settings(group_id="billing"), "orders") as inspector,
        pytest.raises(ClientError, match="may not describe"),
    ):
        inspect._live(inspector, console, timedelta(seconds=2), waits.append)
    assert waits == [2.0, 2.0, 2.0]
    assert isinstance(console.file, StringIO)
    assert "no answer: ClientError: timed out" in console.file.getvalue()
