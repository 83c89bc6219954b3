"""The operator's commands on a real cluster, with consumers that run, restart, or are down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.waiting import wait_for

if TYPE_CHECKING:
    from tests.integration.stage import Stage

pytest_plugins = ["tests.integration.cluster", "tests.integration.stage"]
pytestmark = pytest.mark.kafka


# Looking


def test_dead_letters_are_listed_filtered_counted_and_shown(stage: Stage) -> None:
    stage.cluster.write(stage.topic, b"ada", b"bad 1", b"good 2", headers=[("tag", b"x")])
    stage.cluster.write(stage.topic, b"\xff", b"bad \x80", partition=1)
    stage.cluster.write(stage.topic, None, b'poison {"a": 1}', partition=1)
    stage.until_dead(4)

    rows = stage.letters()
    assert sorted(row["state"] for row in rows) == ["exhausted", "not-retriable", "not-retriable", "parked"]
    newest = stage.letters("--newest-first")
    for partition in (0, 1):
        offsets = [row["offset"] for row in rows if row["partition"] == partition]
        assert offsets == sorted(offsets)
        assert [row["offset"] for row in newest if row["partition"] == partition] == offsets[::-1]
    assert {row["key"] for row in stage.letters("--key", "ada")} == {"ada"}
    assert [row["key"] for row in stage.letters("--key", "hex:ff")] == ["base64:/w=="]
    assert [row["state"] for row in stage.letters("--state", "parked")] == ["parked"]
    assert [row["key"] for row in stage.letters("--reason", "CANNOT be")] == [None]
    assert len(stage.letters("--limit", "3")) == 3
    assert stage.letters("--until", "2020-01-01") == stage.letters("--since", "0s") == []
    assert len(stage.letters("--since", "1h", "--until", "0s")) == 4

    (first,) = stage.letters("--key", "ada", "--state", "not-retriable")
    at = f"{first['partition']}:{first['offset']}"
    shown = stage.run("dlq show", "--at", at).stdout
    assert shown.splitlines()[-2:] == ["payload", "bad 1"]
    assert "  tag: x" in shown
    as_json = json.loads(stage.run("dlq show", "--at", at, "--json").stdout)
    assert (as_json["payload"], as_json["headers"]) == ({"text": "bad 1"}, [{"name": "tag", "value": {"text": "x"}}])
    assert "62 61 64" in stage.run("dlq show", "--at", at, "--payload", "hex").stdout

    summary = json.loads(stage.run("dlq list", "--summary", "--json").stdout)
    assert (summary["total"], {row["key"]: row["count"] for row in summary["keys"]}["ada"]) == (4, 2)
    table = stage.run("dlq list").stdout.splitlines()
    assert table[0].split() == ["at", "time", "state", "attempts", "key", "reason"]
    assert len(table) == 5


def test_what_is_not_there_is_said_in_a_sentence(stage: Stage) -> None:
    nobody = stage.run("dlq list")
    assert (nobody.stdout, nobody.stderr) == (
        "",
        f"group {stage.settings.group_id} has no such dead letter of {stage.topic}\n",
    )
    for command in ("dlq release", "dlq replay", "keys skip", "keys retry-now"):
        assert "has ever failed: nothing to" in stage.run(command, "--key", "ada", "--yes").stderr
    assert f"there is no dead letter at {stage.dlq}[0]@7" in stage.run("dlq show", "--at", "0:7", code=1).stderr
    assert "--at is PARTITION:OFFSET" in stage.run("dlq show", "--at", "7", code=2).stderr
    assert "one of --key, --id, --reason or --all" in stage.run("dlq release", code=2).stderr
    assert "begins with hex:" in stage.run("dlq release", "--key", "hex:xy", code=2).stderr
    stage.topic = "no-such-topic"
    assert "no-such-topic does not exist" in stage.run("dlq list", code=2).stderr


def test_locks_by_state_and_age_and_a_keys_story(stage: Stage) -> None:
    stage.cluster.write(stage.topic, b"ada", b"bad 1", b"good 2")
    stage.cluster.write(stage.topic, b"ben", b"later 1")
    with stage.consuming() as consumer:
        wait_for("both are locked", lambda: len(stage.cluster.read(stage.dlq)) == 2 and len(stage.locks()) == 2)
        assert [lock["key"] for lock in stage.locks("--dead")] == ["ada"]
        assert [lock["key"] for lock in stage.locks("--pending")] == ["ben"]
        assert len(stage.locks("--older-than", "0s")) == 2
        assert stage.locks("--older-than", "1h") == []
        stage.run("dlq release", "--key", "ada", "--yes", "--by", "eve@desk", "--reason-text", "known")
        consumer.check()
    story = json.loads(stage.run("locks", "--history", "ada", "--json").stdout)
    assert {"dead-letter", "lock", "control", "unlock"} <= {event["kind"] for event in story}
    (control,) = [event for event in story if event["kind"] == "control"]
    assert (control["by"], control["why"]) == ("eve@desk", "known")
    assert [event["time"] for event in story] == sorted(event["time"] for event in story)
    lines = stage.run("locks", "--history", "ada").stdout
    assert "release (known), asked by eve@desk" in lines
    assert stage.run("locks", "--history", "nobody").stdout == ""
    assert "one of them" in stage.run("locks", "--dead", "--pending", code=2).stderr


# Changing, and asking before


def test_release_frees_the_key_and_done_again_changes_nothing(stage: Stage) -> None:
    stage.cluster.write(stage.topic, b"ada", b"bad 1", b"good 2")
    stage.until_dead(2)
    with stage.consuming() as consumer:
        first = stage.run("dlq release", "--key", "ada", "--yes")
        assert first.stderr == "ada: released\n"
        assert stage.locks() == []
        again = stage.run("dlq release", "--key", "ada", "--yes")
        assert again.stderr == "key ada is not dead: nothing to release\n"
        stage.cluster.write(stage.topic, b"ada", b"good 3")
        wait_for("the next has run", lambda: stage.bank.journal.offsets("ended") == [2], check=consumer.check)


def test_without_a_terminal_and_without_yes_nothing_is_done(stage: Stage) -> None:
    stage.cluster.write(stage.topic, b"ada", b"bad 1")
    stage.until_dead(1)
    for command in ("dlq release", "dlq replay"):
        refused = stage.run(command, "--key", "ada", code=2)
        assert "Nobody can be asked here" in refused.stderr
    assert stage.cluster.read(f"retry-{stage.topic}") == []


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
@pytest.mark.parametrize(("answer", "code", "controls"), [("n", 1, 0), ("y", 0, 1)])
def test_on_a_terminal_it_asks(stage: Stage, answer: str, code: int, controls: int) -> None:
    stage.cluster.write(stage.topic, b"ada", b"bad 1")
    stage.until_dead(1)
    ours, theirs = os.openpty()
    try:
        servers = ",".join(stage.settings.bootstrap_servers)
        options = ["--key", "ada", "--no-wait", "--brokers", servers, "--group", stage.settings.group_id]
        os.write(ours, f"{answer}\n".encode())
        ended = subprocess.run(
            [sys.executable, "-m", "kafetrain", "dlq", "release", stage.topic, *options],
            stdin=theirs, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(theirs)
    assert ended.returncode == code, ended.stderr
    assert f"release ada  {stage.settings.group_id}/{stage.topic}/0/0" in ended.stderr
    assert f"Releases 1 dead key of {stage.topic}." in ended.stderr
    assert len(stage.cluster.read(f"retry-{stage.topic}")) == controls


def test_while_the_consumers_are_down_it_is_kept_and_obeyed_at_their_start(stage: Stage) -> None:
    stage.cluster.write(stage.topic, b"ada", b"bad 1", b"good 2")
    stage.until_dead(2)
    later = stage.run("dlq release", "--key", "ada", "--yes")
    assert later.stderr == ("ada: asked for; no consumer of the group runs, and when one starts it will be released\n")
    assert [lock["state"] for lock in stage.locks()] == ["dead"]
    with stage.consuming() as consumer:
        wait_for("it is released", lambda: stage.locks() == [], check=consumer.check)


def test_retry_now_and_skip_move_a_key_that_waits(stage: Stage) -> None:
    stage.cluster.write(stage.topic, b"ada", b"later 0", b"good 1")
    stage.cluster.write(stage.topic, b"ben", b"later 2", b"good 3")
    with stage.consuming() as consumer:
        wait_for("both wait", lambda: [lock["pending"] for lock in stage.locks()] == [2, 2], check=consumer.check)
        assert stage.run("keys skip", "--key", "ada", "--yes").stderr == "ada: skipped\n"
        wait_for("the next has run", lambda: stage.bank.journal.offsets("ended") == [1], check=consumer.check)
        assert [row["state"] for row in stage.letters("--key", "ada")] == ["skipped"]
        assert "is not in retry" in stage.run("keys skip", "--key", "ada", "--yes").stderr
        stage.bank.mended.set()
        assert stage.run("keys retry-now", "--key", "ben", "--yes").stderr == "ben: due now\n"
        wait_for("both have run", lambda: stage.bank.journal.offsets("ended") == [1, 2, 3], check=consumer.check)
        wait_for("no lock is left", lambda: stage.locks() == [], check=consumer.check)
