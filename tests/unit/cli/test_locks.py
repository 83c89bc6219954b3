"""`kafetrain locks`: what it reads from the redirect topic, and how it shows it."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from kafetrain import cli
from kafetrain.cli import locks
from kafetrain.client.ports import ClientError
from kafetrain.core.entry import Entry, Registration, State, encode_entry, encode_registration, registration_key
from kafetrain.core.headers import tombstone_headers
from kafetrain.deadletter.lock_view import read_locks
from kafetrain.errors import NewerFormatError, RestoreTimeoutError
from kafetrain.record import Headers, MessageId, TopicPartition
from kafetrain.settings import Settings
from tests.unit.log_fakes import FakeLogClient, FakeReader

Run = Callable[..., Any]

REDIRECT = "redirect-orders"
DUE_MS = 1_900_000_000_000
FAILED_MS = 1_700_000_000_000


@dataclass
class FakeClient(FakeLogClient):
    """A cluster whose redirect topic holds what a test has written."""

    def __post_init__(self) -> None:
        self.cluster.add("orders", 2)
        self.cluster.add(REDIRECT, 2)

    @property
    def opened(self) -> FakeReader:
        """The one reader that was opened."""
        (reader,) = self.readers
        return reader

    def producer(self) -> Any:
        raise AssertionError("it must not write")

    def write(
        self, key: bytes, value: bytes | None, *, partition: int = 0, gap: int = 0, headers: Headers = ()
    ) -> None:
        self.append(REDIRECT, partition, key, value, headers, gap=gap)

    def put(
        self, offset: int, entry: Entry, *, partition: int = 0, group: str = "billing", topic: str = "orders"
    ) -> None:
        id = MessageId(group, topic, partition, offset)
        self.write(str(id).encode(), encode_entry(entry), partition=partition)

    def end(self, offset: int, key: bytes | None, *, partition: int = 0) -> None:
        id = MessageId("billing", "orders", partition, offset)
        self.write(str(id).encode(), None, partition=partition, headers=tombstone_headers(key))


def failed(key: bytes | None, attempt: int = 2, error: str = "no answer") -> Entry:
    return Entry(key, attempt=attempt, due_ms=DUE_MS, first_failure_ms=FAILED_MS, error_type="BankError", error=error)


def waiting(key: bytes | None) -> Entry:
    return Entry(key, due_ms=FAILED_MS)


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def settings() -> Settings:
    return Settings(group_id="billing", bootstrap_servers=["here:9092"])


@pytest.fixture
def run(client: FakeClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs the command line on `client`, in an empty directory and environment, as the group billing."""
    for name in [name for name in os.environ if name.upper().startswith("KAFETRAIN_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(locks, "connect", lambda settings: client)

    def invoke(*arguments: str, group: str | None = "billing") -> Any:
        chosen = () if group is None else ("--group", group)
        return CliRunner().invoke(cli.app, ["locks", *arguments, *chosen])

    return invoke


class TestReading:
    def test_a_key_is_one_lock_with_its_head_and_all_that_waits(self, client: FakeClient, settings: Settings) -> None:
        client.put(5, failed(b"ada"))
        client.put(7, waiting(b"ada"))
        client.put(9, waiting(b"ada"))
        (lock,) = read_locks(client, settings, "orders")
        assert (lock.key, lock.partition, lock.state, lock.pending, lock.attempt) == (b"ada", 0, "pending", 3, 2)
        assert lock.head == "billing/orders/0/5"
        assert (lock.error_type, lock.error) == ("BankError", "no answer")
        assert lock.due.timestamp() * 1000 == DUE_MS

    def test_what_has_ended_is_no_lock(self, client: FakeClient, settings: Settings) -> None:
        client.put(5, failed(b"ada"))
        client.put(7, waiting(b"ada"))
        client.end(5, b"ada")
        (lock,) = read_locks(client, settings, "orders")
        assert lock.head == "billing/orders/0/7"
        client.end(7, b"ada")
        assert read_locks(client, settings, "orders") == []

    def test_the_last_word_counts(self, client: FakeClient, settings: Settings) -> None:
        client.put(5, failed(b"ada", attempt=1))
        client.put(5, failed(b"ada", attempt=4))
        client.put(5, failed(b"ada", attempt=4).died((0, 17)))
        (lock,) = read_locks(client, settings, "orders")
        assert (lock.state, lock.attempt, lock.pending) == (State.DEAD.value, 4, 0)

    def test_locks_of_all_partitions_come_by_partition_and_due_time(
        self, client: FakeClient, settings: Settings
    ) -> None:
        client.put(1, failed(b"late"), partition=1)
        client.put(2, waiting(b"early"), partition=1)
        client.put(3, failed(b"first"))
        assert [lock.key for lock in read_locks(client, settings, "orders")] == [b"first", b"early", b"late"]

    def test_records_without_a_key_are_locks_of_their_own(self, client: FakeClient, settings: Settings) -> None:
        client.put(1, failed(None))
        client.put(2, failed(None))
        assert [lock.pending for lock in read_locks(client, settings, "orders")] == [1, 1]

    def test_other_groups_topics_and_registrations_are_left_out(self, client: FakeClient, settings: Settings) -> None:
        client.write(registration_key("billing"), encode_registration(Registration("orders", "id", 1)))
        client.write(registration_key("shipping"), None)
        client.put(1, failed(b"x"), group="shipping")
        client.put(1, failed(b"x"), topic="invoices")
        client.write(b"shipping/orders/0/2", b'{"v": 99}')
        assert read_locks(client, settings, "orders") == []

    def test_damage_is_skipped_and_an_unreadable_entry_is_pending(self, client: FakeClient, settings: Settings) -> None:
        client.write(b"\xff", b"x")
        client.write(b"nonsense", b"x")
        client.write(b"group/g", b"nonsense")
        client.write(b"billing/orders/0/3", b"nonsense")
        (lock,) = read_locks(client, settings, "orders")
        assert (lock.head, lock.state, lock.key) == ("billing/orders/0/3", "pending", None)

    def test_gaps_of_compaction_are_passed(self, client: FakeClient, settings: Settings) -> None:
        client.put(1, failed(b"ada"))
        client.write(b"billing/orders/0/9", None, gap=1000)
        assert len(read_locks(client, settings, "orders")) == 1

    def test_a_beginning_that_was_purged_meanwhile_is_read_again(self, client: FakeClient, settings: Settings) -> None:
        client.put(1, failed(b"gone"))
        client.put(2, failed(b"ada"))
        client.beginning[TopicPartition(REDIRECT, 0)] = 1
        assert [lock.key for lock in read_locks(client, settings, "orders")] == [b"ada"]

    def test_a_newer_format_is_an_error(self, client: FakeClient, settings: Settings) -> None:
        client.write(b"billing/orders/0/3", b'{"v": 2}')
        with pytest.raises(NewerFormatError, match=r"redirect-orders\[0\]@0 has format 2"):
            read_locks(client, settings, "orders")
        assert client.opened.closed

    def test_no_progress_is_an_error_that_says_where(self, client: FakeClient, settings: Settings) -> None:
        client.put(1, failed(b"ada"))
        client.stalled = True
        with pytest.raises(RestoreTimeoutError, match=r"redirect-orders\[0\] made no progress: at offset unknown of 1"):
            read_locks(client, settings, "orders", clock=client.clock)
        assert client.clock.seconds == pytest.approx(30, abs=1)

    def test_everything_is_closed_and_nothing_is_created(self, client: FakeClient, settings: Settings) -> None:
        read_locks(client, settings, "orders")
        assert client.opened.closed
        assert client.cluster.closed
        assert (client.cluster.created, client.cluster.grown) == ([], [])


class TestJson:
    def test_it_has_all_that_is_known(self, run: Run, client: FakeClient) -> None:
        client.put(5, failed(b"ada"))
        client.put(7, waiting(b"ada"))
        result = run("orders", "--json")
        assert (result.exit_code, result.stderr) == (0, "")
        (row,) = json.loads(result.stdout)
        assert row.pop("age_seconds") > 0
        assert row == {
            "topic": "orders",
            "partition": 0,
            "key": "ada",
            "state": "pending",
            "head": "billing/orders/0/5",
            "pending": 2,
            "attempt": 2,
            "due": "2030-03-17T17:46:40.000+00:00",
            "first_failure": "2023-11-14T22:13:20.000+00:00",
            "error_type": "BankError",
            "error": "no answer",
        }

    @pytest.mark.parametrize(
        ("key", "shown"),
        [
            (b"ada", "ada"),
            ("größe".encode(), "größe"),
            (b"", ""),
            (None, None),
            (b"\xff\x00", "base64:" + base64.b64encode(b"\xff\x00").decode()),
            (b"two\nlines", "base64:" + base64.b64encode(b"two\nlines").decode()),
            (b"\x1b[31mred", "base64:" + base64.b64encode(b"\x1b[31mred").decode()),
            (b"base64:YQ==", "base64:" + base64.b64encode(b"base64:YQ==").decode()),
        ],
    )
    def test_a_key_is_text_where_that_is_safe_and_clear(
        self, run: Run, client: FakeClient, key: bytes | None, shown: str | None
    ) -> None:
        client.put(1, failed(key))
        (row,) = json.loads(run("orders", "--json").stdout)
        assert row["key"] == shown

    def test_no_locks_are_an_empty_list_and_a_word_on_stderr(self, run: Run) -> None:
        result = run("orders", "--json")
        assert result.exit_code == 0
        assert json.loads(result.stdout) == []
        assert result.stderr == "group billing has no key of orders in retry\n"


class TestTable:
    def test_a_row_for_each_key(self, run: Run, client: FakeClient) -> None:
        client.put(5, failed(b"ada"))
        client.put(8, failed(b"ben", error="first line\nsecond\x1b[31m").died((1, 3)), partition=1)
        result = run("orders")
        assert (result.exit_code, result.stderr) == (0, "")
        head, ada, ben = (line.split() for line in result.stdout.splitlines())
        assert head == ["key", "partition", "state", "pending", "attempt", "due", "age", "last", "error"]
        assert ada[:5] == ["ada", "0", "pending", "1", "2"]
        assert ada[-3:] == ["BankError:", "no", "answer"]
        assert ben[:6] == ["ben", "1", "dead", "0", "2", "-"]
        assert ben[-3:] == ["BankError:", "first", "line"]

    def test_markup_and_control_characters_of_others_do_nothing(self, run: Run, client: FakeClient) -> None:
        client.put(1, failed(b"[red]key[/red]", error="[bold]\x1b[31m\x07"))
        result = run("orders")
        assert "[red]key[/red]" in result.stdout
        assert "BankError: [bold]?[31m?" in result.stdout

    def test_no_locks_are_no_table(self, run: Run) -> None:
        result = run("orders")
        assert (result.exit_code, result.stdout) == (0, "")
        assert result.stderr == "group billing has no key of orders in retry\n"


class TestErrors:
    def test_a_topic_that_never_failed_has_no_locks(self, run: Run, client: FakeClient) -> None:
        del client.cluster.topics[REDIRECT]
        result = run("orders", "--json")
        assert (result.exit_code, json.loads(result.stdout)) == (0, [])

    def test_a_topic_that_does_not_exist_is_wrong_usage(self, run: Run) -> None:
        result = run("invoices", "--brokers", "there:9092")
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith("error: invoices does not exist, and neither does redirect-invoices")
        assert "there:9092" in result.stderr

    def test_locks_of_a_source_topic_that_is_gone_are_listed(self, run: Run, client: FakeClient) -> None:
        del client.cluster.topics["orders"]
        client.put(1, failed(b"ada"))
        assert len(json.loads(run("orders", "--json").stdout)) == 1

    def test_a_missing_group_is_wrong_usage(self, run: Run) -> None:
        result = run("orders", group=None)
        assert result.exit_code == 2
        assert "group_id is missing" in result.stderr

    def test_a_broker_that_does_not_answer_is_a_failure(self, run: Run, client: FakeClient) -> None:
        client.cluster.failures["describe_topics"] = [ClientError("no broker answers at here:9092")]
        result = run("orders")
        assert (result.exit_code, result.stderr) == (1, "error: no broker answers at here:9092\n")
