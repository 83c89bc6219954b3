"""`kafetrain dlq` and `kafetrain keys`: what they print, what they refuse, and how they end."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from kafetrain import cli
from kafetrain.cli import dlq, key_changes
from kafetrain.record import TopicPartition
from tests.unit.deadletter.conftest import DLQ, World

Run = Callable[..., Any]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def run(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """`kafetrain COMMAND orders ARGUMENTS` as the group billing, in an empty environment and directory."""
    for name in [name for name in os.environ if name.upper().startswith("KAFETRAIN_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    for module in (dlq, key_changes):
        monkeypatch.setattr(module, "connect", lambda settings: world)

    def invoke(command: str, *arguments: str) -> Any:
        return CliRunner().invoke(cli.app, [*command.split(), "orders", *arguments, "--group", "billing"])

    return invoke


def payload(run: Run, *arguments: str) -> str:
    shown = run("dlq show", "--at", "0:0", *arguments)
    assert shown.exit_code == 0, shown.stderr
    return str(shown.stdout.split("payload\n", 1)[1])


class TestShow:
    @pytest.mark.parametrize(
        ("value", "arguments", "shown"),
        [
            (b"two\nlines", (), "two\nlines\n"),
            (b'{"b":[1],"a":"\xc3\xbc"}', (), '{\n  "b": [\n    1\n  ],\n  "a": "ü"\n}\n'),
            (b'{"a":1}', ("--payload", "text"), '{"a":1}\n'),
            (b"\x00ab\xff", (), f"00000000  {'00 61 62 ff':<47}  .ab.\n"),
            (b"ab", ("--payload", "hex"), f"00000000  {'61 62':<47}  ab\n"),
            (b"\x1b[31mred", ("--payload", "text"), "?[31mred\n"),
            (b"", (), "\n"),
            (None, (), "(null)\n"),
        ],
    )
    def test_a_payload_is_shown_as_what_it_is(
        self, run: Run, world: World, value: bytes | None, arguments: tuple[str, ...], shown: str
    ) -> None:
        world.letter(5, b"a", value=value)
        assert payload(run, *arguments) == shown

    @pytest.mark.parametrize("value", [b"x" * 5000, b'["' + b"y" * 5000 + b'"]', b"\xff" * 5000, "ü".encode() * 2500])
    def test_a_long_one_is_cut_and_says_so(self, run: Run, world: World, value: bytes) -> None:
        world.letter(5, b"a", value=value)
        cut = payload(run)
        assert cut.endswith(f"\n... cut, of {len(value)} bytes; --full shows all of them\n")
        full = payload(run, "--full")
        assert "... cut" not in full
        assert len(full) > len(cut)

    def test_what_is_no_json_is_not_shown_as_json(self, run: Run, world: World) -> None:
        world.letter(5, b"a", value=b"{")
        wrong = run("dlq show", "--at", "0:0", "--payload", "json")
        assert (wrong.exit_code, "the payload is no JSON" in wrong.stderr) == (2, True)

    def test_all_that_is_known_of_it(self, run: Run, world: World) -> None:
        world.letter(5, b"a", own=[("tag", b"1"), ("none", None)], reason="first\n\x1b[31msecond")
        lines = run("dlq show", "--at", "0:0").stdout.splitlines()
        assert "key            a" in lines
        assert "id             billing/orders/0/5" in lines
        assert "reason         first??[31msecond" in lines
        assert lines[-5:] == ["headers", "  tag: 1", "  none: (null)", "payload", "payload"]


class TestList:
    def test_rows_and_json_that_can_be_read_line_by_line(self, run: Run, world: World) -> None:
        world.letter(5, b"a", reason="first\nsecond")
        world.letter(6, None)
        head, first, second = run("dlq list").stdout.splitlines()
        assert head.split() == ["at", "time", "state", "attempts", "key", "reason"]
        assert first.split() == ["0:0", "1970-01-01T00:00:01Z", "exhausted", "3", "a", "BankError:", "first"]
        assert "(none)" in second
        text = run("dlq list", "--json").stdout
        assert [row["id"] for row in json.loads(text)] == ["billing/orders/0/5", "billing/orders/0/6"]
        lines = text.splitlines()
        assert (lines[0], lines[-1], json.loads(lines[1].rstrip(","))["key"]) == ("[", "]", "a")

    def test_none_is_an_empty_list(self, run: Run) -> None:
        nothing = run("dlq list", "--json")
        assert (nothing.exit_code, json.loads(nothing.stdout)) == (0, [])
        assert nothing.stderr == "group billing has no such dead letter of orders\n"

    def test_a_summary_counts_by_reason_and_by_key(self, run: Run, world: World) -> None:
        for offset in range(3):
            world.letter(offset, b"a")
        world.parked(3, b"b")
        text = run("dlq list", "--summary").stdout
        assert text.splitlines() == [
            "4 dead letters",
            "",
            "by reason",
            "       3  exhausted      BankError: no answer",
            "       1  parked         -",
            "",
            "by key",
            "       3  a",
            "       1  b",
        ]

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (("--state", "lost"), "--state is one of exhausted, not-retriable, parked"),
            (("--since", "yesterday"), "--since is a time such as"),
            (("--key", "base64:*"), "the key begins with base64: but what follows is no base64"),
        ],
    )
    def test_wrong_filters_are_wrong_usage(self, run: Run, arguments: tuple[str, ...], sentence: str) -> None:
        wrong = run("dlq list", *arguments)
        assert (wrong.exit_code, wrong.stdout) == (2, "")
        assert sentence in wrong.stderr


class TestChanges:
    def test_a_dry_run_says_what_would_run_and_writes_nothing(self, run: Run, world: World) -> None:
        world.die(5, b"a")
        world.parked(6, b"a")
        dry = run("dlq replay", "--all", "--dry-run")
        assert dry.stdout == "replay a  billing/orders/0/5  runs 2: 0:0, 0:1\n"
        assert dry.stderr == "would run 2 records; nothing was changed\n"
        (key,) = json.loads(run("dlq replay", "--all", "--dry-run", "--json").stdout)["keys"]
        assert [record["id"] for record in key["records"]] == ["billing/orders/0/5", "billing/orders/0/6"]
        assert world.sent == []

    def test_a_dry_run_tries_the_transform(self, run: Run, world: World, tmp_path: Path) -> None:
        (tmp_path / "unit_mending.py").write_text("def mend(record):\n    return record.value.upper()\n")
        world.die(5, b"a")
        dry = run("dlq replay", "--key", "a", "--dry-run", "--transform", "unit_mending:mend")
        assert "unit_mending:mend changes 1 of 1 payloads" in dry.stderr
        assert world.sent == []

    def test_json_says_what_came_of_it(self, run: Run, world: World) -> None:
        world.die(5, b"a")
        done = json.loads(run("dlq release", "--key", "a", "--yes", "--json").stdout)
        assert (done["action"], done["keys"][0]["effect"], done["nothing"]) == ("release", "done", [])
        assert done["command"] == world.controls[0].audit.command
        again = json.loads(run("dlq release", "--key", "a", "--yes", "--json").stdout)
        assert (again["keys"], again["nothing"]) == ([], ["key a is not dead: nothing to release"])

    def test_not_in_time_is_a_failure_that_says_that_it_stays(self, run: Run, world: World) -> None:
        world.die(5, b"a")
        world.obeys = False
        late = run("dlq release", "--key", "a", "--yes", "--timeout", "100ms")
        assert (late.exit_code, late.stderr) == (
            1,
            "a: not released within 100ms; it stays in the log and will be obeyed\n",
        )

    def test_not_waited_for(self, run: Run, world: World) -> None:
        world.die(5, b"a")
        world.obeys = False
        asked = run("dlq release", "--key", "a", "--yes", "--no-wait")
        assert (asked.exit_code, asked.stderr) == (0, "a: asked for; not waited until it is released\n")

    def test_without_yes_and_without_a_terminal_nothing_is_written(self, run: Run, world: World) -> None:
        world.die(5, b"a")
        world.wait(7, b"b")
        for command, key in (("dlq release", "a"), ("dlq replay", "a"), ("keys skip", "b"), ("keys retry-now", "b")):
            refused = run(command, "--key", key)
            assert (refused.exit_code, "Nobody can be asked here" in refused.stderr) == (2, True)
        assert world.sent == []

    def test_nothing_to_do_asks_nobody(self, run: Run) -> None:
        nothing = run("dlq release", "--key", "a")
        assert (nothing.exit_code, nothing.stderr) == (0, "key a is not dead: nothing to release\n")

    @pytest.mark.parametrize("rate", ["0", "-1", "fast", "nan", "inf"])
    def test_a_rate_is_a_number_above_zero(self, run: Run, rate: str) -> None:
        wrong = run("dlq replay", "--all", "--rate", rate)
        assert (wrong.exit_code, "--rate is a number of records a second" in wrong.stderr) == (2, True)

    def test_who_and_why_are_in_the_control_record(self, run: Run, world: World) -> None:
        world.wait(7, b"b")
        run("keys skip", "--key", "b", "--yes", "--by", "ada@desk", "--reason-text", "a known fault")
        audit = world.controls[0].audit
        assert (audit.by, audit.why) == ("ada@desk", "a known fault")
        world.wait(9, b"c")
        run("keys retry-now", "--key", "c", "--yes")
        assert "@" in world.controls[1].audit.by

    def test_a_deleted_dead_letter_is_said_not_to_run(self, run: Run, world: World) -> None:
        world.die(5, b"a")
        world.letter(9, b"z")
        world.beginning[TopicPartition(DLQ, 0)] = 1
        gone = run("dlq replay", "--key", "a", "--yes")
        assert (gone.exit_code, world.sent) == (0, [])
        assert "its dead letter was deleted, or is a former topic's: nothing to replay" in gone.stderr
