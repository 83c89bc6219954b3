"""The operator's commands on a real cluster, with consumers that run, restart, or are down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from kafetrain import KafkaConsumer, NotRetriableError, Record, RetriableError, Settings, cli
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
    from kafetrain.consumer.resilient import ResilientConsumer
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka

Run = Callable[..., Any]


class Bank:
    """A handler that fails as it is told, until it is mended."""

    def __init__(self) -> None:
        self.mended = threading.Event()
        self.journal = Journal()
        self.handle = self.journal.recording(self._handle)

    def _handle(self, record: Record) -> None:
        if record.value.startswith(b"bad") and not self.mended.is_set():
            raise NotRetriableError(f"no account: {record.value.decode()}")
        if record.value.startswith(b"poison"):
            raise NotRetriableError("cannot be read")
        if record.value.startswith(b"later") and not self.mended.is_set():
            raise RetriableError("the bank is closed", delay=timedelta(hours=1))


class Stage:
    """A topic, its group, and the command line for both."""

    def __init__(self, cluster: Cluster, settings: Settings, topic: str) -> None:
        self.cluster, self.settings, self.topic = cluster, settings, topic
        self.bank = Bank()
        self.dlq = f"dlq-{topic}"

    @contextmanager
    def consuming(self) -> Iterator[ResilientConsumer]:
        with KafkaConsumer.resilient(self.settings, self.topic, self.bank.handle) as consumer:
            yield consumer

    def run(self, command: str, *arguments: str, code: int = 0) -> Any:
        """`kafetrain COMMAND TOPIC ARGUMENTS`; `code` is the exit code that it must have."""
        servers = ",".join(self.settings.bootstrap_servers)
        options = ["--brokers", servers, "--group", self.settings.group_id]
        result = CliRunner().invoke(cli.app, [*command.split(), self.topic, *arguments, *options])
        assert result.exit_code == code, (result.stdout, result.stderr)
        return result

    def letters(self, *arguments: str) -> list[dict[str, Any]]:
        return list(json.loads(self.run("dlq list", *arguments, "--json").stdout))

    def locks(self, *arguments: str) -> list[dict[str, Any]]:
        return list(json.loads(self.run("locks", *arguments, "--json").stdout))

    def until_dead(self, letters: int) -> None:
        """With a consumer, until so many dead letters are there and nothing is pending."""
        with self.consuming() as consumer:
            wait_for(
                f"{letters} dead letters",
                lambda: (
                    len(self.cluster.read(self.dlq)) == letters
                    and not any(lock.pending for lock in consumer.tracker.locks(self.topic))
                ),
                check=consumer.check,
            )


@pytest.fixture
def stage(
    cluster: Cluster,
    kafetrain_topic: TopicFactory,
    make_settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Stage:
    for name in [name for name in os.environ if name.upper().startswith("KAFETRAIN_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return Stage(cluster, make_settings(), kafetrain_topic(2, prefix="orders"))


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
