"""Replaying dead keys by command on a real cluster: in order, once, and through restarts."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kafetrain.client.kafka_python import KafkaPythonClient
from kafetrain.client.ports import OutgoingRecord
from kafetrain.core.entry import Entry, State, encode_entry
from kafetrain.core.headers import DeadLetterState, dlq_headers
from kafetrain.deadletter import DeadLetters
from kafetrain.record import MessageId
from kafetrain.topic_setup import prepare_topics
from tests.integration.journal import Journal
from tests.waiting import wait_for

if TYPE_CHECKING:
    from tests.integration.cluster import MakeSettings
    from tests.integration.stage import Stage

pytest_plugins = ["tests.integration.cluster", "tests.integration.stage"]
pytestmark = pytest.mark.kafka


def test_replay_runs_the_dead_and_the_parked_in_order(stage: Stage) -> None:
    written = stage.cluster.write(stage.topic, b"ada", b"bad 0", *(b"good %d" % number for number in range(1, 11)))
    stage.until_dead(11)
    dry = stage.run("dlq replay", "--key", "ada", "--dry-run")
    assert "runs 11: 0:0, 0:1, 0:2" in dry.stdout
    assert dry.stderr == "would run 11 records; nothing was changed\n"
    stage.bank.mended.set()
    with stage.consuming() as consumer:
        stage.cluster.write(stage.topic, b"ada", b"good 11")
        said = stage.run("dlq replay", "--key", "ada", "--yes").stderr
        assert said in [f"ada ({count} records): replayed\n" for count in (11, 12)], "the last may be parked by then"
        wait_for(
            "all have run once more, in order",
            lambda: stage.bank.journal.offsets("ended") == list(range(12)),
            check=consumer.check,
        )
        again = stage.run("dlq replay", "--key", "ada", "--yes")
        assert again.stderr == "key ada is not dead: nothing to replay\n"
    assert len(written) == 11


def test_a_key_with_many_behind_it_is_replayed_through_a_restart_and_new_records(stage: Stage) -> None:
    journal = stage.bank.journal
    stage.cluster.write(stage.topic, b"ada", b"bad 0", *(b"good %d" % number for number in range(1, 51)))
    stage.until_dead(51)
    failed = len(journal.events)
    stage.bank.mended.set()
    with stage.consuming() as consumer:
        stage.run("dlq replay", "--key", "ada", "--yes", "--no-wait")
        stage.cluster.write(stage.topic, b"ada", *(b"good %d" % number for number in range(51, 61)))
        wait_for("it is under way", lambda: len(journal.offsets("ended")) >= 5, check=consumer.check)
    journal.interrupted()
    stage.cluster.write(stage.topic, b"ada", *(b"good %d" % number for number in range(61, 71)))
    with stage.consuming() as consumer:
        wait_for("the last has run", lambda: 70 in journal.offsets("ended"), check=consumer.check)
        wait_for("no lock is left", lambda: stage.locks() == [], check=consumer.check)
    ended = journal.offsets("ended")
    assert list(dict.fromkeys(ended)) == list(range(71)), "each for the first time in the order of the source"
    Journal(journal.events[failed:]).key_order()


def test_what_was_parked_behind_a_released_one_stays_when_its_key_dies_again(stage: Stage) -> None:
    """Also where another key, which died before that, is replayed by the same command."""
    stage.cluster.write(stage.topic, b"ada", b"bad 0")
    stage.until_dead(1)
    stage.cluster.write(stage.topic, b"ben", b"bad 1", b"good 2")
    stage.until_dead(3)
    with stage.consuming() as consumer:
        stage.run("dlq release", "--key", "ben", "--yes")
        consumer.check()
    stage.cluster.write(stage.topic, b"ben", b"bad 3", b"good 4")
    stage.until_dead(5)
    stage.bank.mended.set()
    stage.run("dlq replay", "--all", "--yes")
    with stage.consuming() as consumer:
        wait_for("no key is dead", lambda: stage.locks() == [], check=consumer.check)
    assert sorted(stage.bank.journal.offsets("ended")) == [0, 3, 4]


def test_two_operators_at_once_replay_it_once(stage: Stage) -> None:
    stage.cluster.write(stage.topic, b"ada", b"bad 0", b"good 1", b"good 2")
    stage.until_dead(3)
    stage.bank.mended.set()
    with DeadLetters(stage.settings, stage.topic) as first, DeadLetters(stage.settings, stage.topic) as second:
        plans = [first.plan_replay(key="ada"), second.plan_replay(key="ada")]
        first.carry_out(plans[0], wait=False)
        second.carry_out(plans[1], wait=False)
    with stage.consuming() as consumer:
        wait_for("they have run", lambda: stage.bank.journal.offsets("ended") == [0, 1, 2], check=consumer.check)
        stage.cluster.write(stage.topic, b"ada", b"good 3")
        wait_for("and once only", lambda: stage.bank.journal.offsets("ended") == [0, 1, 2, 3], check=consumer.check)


def test_a_poison_payload_is_changed_and_the_original_stays(stage: Stage, tmp_path: Path) -> None:
    module = f"mending_{os.getpid()}"
    (tmp_path / f"{module}.py").write_text(
        "def mend(record):\n    return record.value.replace(b'poison', b'good')\n\n"
        "def fail(record):\n    raise KeyError(record.value)\n"
    )
    stage.cluster.write(stage.topic, b"ada", b"poison 0", b"good 1")
    stage.until_dead(2)
    failed = stage.run("dlq replay", "--key", "ada", "--yes", "--transform", f"{module}:fail", code=1)
    assert failed.stderr == (
        f"error: the transform raised KeyError for {stage.dlq}[0]@0 ({stage.topic}[0]@0): nothing was changed\n"
    )
    assert "has no such" in stage.run("dlq replay", "--key", "ada", "--transform", f"{module}:such", code=2).stderr
    assert len(stage.cluster.read(stage.dlq)) == 2
    with stage.consuming() as consumer:
        stage.run("dlq replay", "--key", "ada", "--yes", "--transform", f"{module}:mend")
        wait_for("both have run", lambda: stage.bank.journal.offsets("ended") == [0, 1], check=consumer.check)
    assert [row["state"] for row in stage.letters()] == ["not-retriable", "parked"]
    (copy,) = stage.letters("--state", "transformed")
    assert copy["transform"] == f"{module}:mend"
    shown = stage.run("dlq show", "--at", f"{copy['partition']}:{copy['offset']}").stdout
    assert shown.splitlines()[-1] == "good 0"


def test_where_dead_keys_are_freed_replay_appends_and_says_so(
    stage: Stage, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.settings = make_settings(group_id=stage.settings.group_id, free_on_dlq=True)
    monkeypatch.setenv("KAFETRAIN_FREE_ON_DLQ", "true")
    stage.cluster.write(stage.topic, b"ada", b"bad 0", b"good 1", b"bad 2")
    stage.until_dead(2)
    stage.bank.mended.set()
    with stage.consuming() as consumer:
        result = stage.run("dlq replay", "--key", "ada", "--yes")
        assert "2 ran behind what their keys have done since: newer records of a key may have passed them" in (
            result.stderr
        )
        wait_for("they have run", lambda: stage.bank.journal.offsets("ended") == [1, 0, 2], check=consumer.check)
        again = stage.run("dlq replay", "--key", "ada", "--yes")
        assert "there is no dead letter of it that was not replayed" in again.stderr
    assert {row["state"] for row in stage.letters()} == {"not-retriable"}
    assert [row["replayed"] for row in stage.letters("--state", "replayed")] == ["0:0", "0:1"]


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("without_coverage")
def test_ten_thousand_dead_keys_are_replayed_by_one_command(stage: Stage) -> None:
    count = 10_000
    _kill_keys(stage, count)
    ended: set[bytes] = set()
    stage.bank.handle = lambda record: ended.add(record.key)
    with stage.consuming() as consumer:
        result = stage.run("dlq replay", "--all", "--yes", "--timeout", "5m")
        assert result.stderr == f"{count} keys: replayed\n"
        wait_for("all have run", lambda: len(ended) == count, check=consumer.check)
        wait_for("no lock is left", lambda: stage.locks() == [], check=consumer.check)


def _kill_keys(stage: Stage, count: int) -> None:
    """As a consumer leaves them: a dead letter for each key, and a dead lock that points at it."""
    client = KafkaPythonClient(stage.settings)
    admin, producer = client.admin(), client.producer()
    try:
        names = prepare_topics(admin, stage.settings, stage.topic).names
        ids = [MessageId(stage.settings.group_id, stage.topic, number % 2, number // 2) for number in range(count)]
        keys = [b"key %d" % number for number in range(count)]
        why: dict[str, Any] = {
            "state": DeadLetterState.EXHAUSTED,
            "attempts": 3,
            "error_type": "BankError",
            "reason": "no account",
            "now_ms": 1,
            "first_failure_ms": 1,
            "source_timestamp_ms": 1,
        }
        letters = [
            producer.send(OutgoingRecord(names.dlq, id.partition, key, b"good", dlq_headers(id, (), **why)))
            for id, key in zip(ids, keys, strict=True)
        ]
        locks = []
        for id, key, letter in zip(ids, keys, letters, strict=True):
            dead = Entry(key, State.DEAD, 3, 1, 1, "BankError", "no account", (id.partition, letter.result(30)))
            locks.append(
                producer.send(OutgoingRecord(names.redirect, id.partition, str(id).encode(), encode_entry(dead)))
            )
        for lock in locks:
            lock.result(30)
    finally:
        producer.close(timedelta(seconds=5))
        admin.close()
