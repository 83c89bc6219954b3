"""Control records: an operator's wish has one place in the order of its key, and is fulfilled once."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from kafetrain import ConstantBackoff, KafkaConsumer, Record, Settings, get_retry_attempt
from kafetrain.client.kafka_python import KafkaPythonClient
from kafetrain.client.ports import ClientError
from kafetrain.core.control import Action, Audit, Control, control_headers
from kafetrain.errors import FatalError
from kafetrain.record import MessageId, RetryHeader, header
from tests.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka

AUDIT = Audit("command-1", "ann@desk", 1_700_000_000_000, "a test")


class Operator:
    """Appends control records, as a command does."""

    def __init__(self, cluster: Cluster, settings: Settings, topic: str) -> None:
        self.cluster, self.group, self.topic = cluster, settings.group_id, topic

    def ask(self, action: Action, key: bytes | None, offset: int, **more: Any) -> None:
        id = MessageId(self.group, self.topic, 0, offset)
        seen = [r.offset for r in self.cluster.read(f"redirect-{self.topic}") if r.key == str(id).encode()]
        control = Control(action, id, max(seen, default=-1), more.pop("audit", AUDIT), **more)
        self.cluster.write(f"retry-{self.topic}", key, b"", headers=control_headers(control))

    def state(self, offset: int) -> str | None:
        """Of the id's lock."""
        entry = self.cluster.locks(f"redirect-{self.topic}").get(str(MessageId(self.group, self.topic, 0, offset)))
        return None if entry is None else str(entry["state"])

    def dead_states(self) -> list[str]:
        return list(self.cluster.dead_places(f"dlq-{self.topic}").values())


class Handler:
    """Fails for what is `bad`; notes what ran."""

    def __init__(self, *bad: bytes) -> None:
        self.bad = set(bad)
        self.ran: list[tuple[bytes, int]] = []
        self.records: list[Record] = []

    def __call__(self, record: Record) -> None:
        self.ran.append((record.value, get_retry_attempt(record)))
        self.records.append(record)
        if record.value in self.bad:
            raise ValueError("bad")

    @property
    def values(self) -> list[bytes]:
        return [value for value, _ in self.ran]


def test_a_dead_key_is_replayed_in_order_before_anything_newer(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    """While producers go on, and the consumer restarts in the middle."""
    topic, settings = kafetrain_topic(prefix="orders"), make_settings(max_retries=0)
    operator, handler = Operator(cluster, settings, topic), Handler(b"0")
    cluster.write(topic, b"k", *[b"%d" % i for i in range(51)], headers=[("tag", b"1")])
    with KafkaConsumer.resilient(settings, topic, handler) as consumer:
        wait_for("fifty are parked", lambda: operator.dead_states().count("parked") == 50, check=consumer.check)
    handler.bad.clear()
    handler.ran.clear()
    cluster.write(topic, b"k", b"51", b"52")
    operator.ask(Action.REPLAY, b"k", 0)
    operator.ask(Action.REPLAY, b"k", 0)
    reached = threading.Event()

    def stop_in_the_middle(record: Record) -> None:
        handler(record)
        if record.value == b"20":
            reached.set()

    with KafkaConsumer.resilient(settings, topic, stop_in_the_middle) as consumer:
        wait_for("some ran", reached.is_set, check=consumer.check)
        cluster.write(topic, b"k", b"53")
    with KafkaConsumer.resilient(settings, topic, handler) as consumer:
        wait_for("all ran", lambda: b"53" in handler.values, check=consumer.check)
        wait_for("no lock is left", lambda: not consumer.tracker.locks(topic), check=consumer.check)
    assert list(dict.fromkeys(handler.values)) == [b"%d" % i for i in range(54)]
    assert len(handler.values) <= 55, "at most what ran at the stop ran twice"
    first = handler.records[-1 - len(handler.values) + 1]
    assert ("tag", b"1") in first.headers
    assert {attempt for _, attempt in handler.ran} == {0}
    cluster.check_at_rest(settings, topic)


def test_a_replay_of_a_parked_record_that_fails_again_kills_the_key_again(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings = kafetrain_topic(prefix="orders"), make_settings(max_retries=0)
    operator, handler = Operator(cluster, settings, topic), Handler(b"a", b"c")
    cluster.write(topic, b"k", b"a", b"b", b"c", b"d")
    with KafkaConsumer.resilient(settings, topic, handler) as consumer:
        wait_for("three are parked", lambda: operator.dead_states().count("parked") == 3, check=consumer.check)
        handler.bad = {b"c"}
        operator.ask(Action.REPLAY, b"k", 0)
        wait_for("the third died", lambda: operator.state(2) == "dead", check=consumer.check)
        wait_for("the fourth is parked again", lambda: operator.state(3) is None, check=consumer.check)
        handler.bad.clear()
        operator.ask(Action.REPLAY, b"k", 0)  # of the first death: nothing any more
        operator.ask(Action.REPLAY, b"k", 2)
        wait_for("all ran", lambda: handler.values[-1] == b"d", check=consumer.check)
        wait_for("no lock is left", lambda: not consumer.tracker.locks(topic), check=consumer.check)
    assert handler.values == [b"a", b"a", b"b", b"c", b"c", b"d"]
    cluster.check_at_rest(settings, topic)


def test_a_changed_payload_runs_instead_of_the_original(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    """Only that of the same command; the record says what changed it."""
    topic, settings = kafetrain_topic(prefix="orders"), make_settings(max_retries=0)
    operator, handler = Operator(cluster, settings, topic), Handler(b"poison")
    cluster.write(topic, b"k", b"poison", b"next")
    with KafkaConsumer.resilient(settings, topic, handler) as consumer:
        wait_for("it is parked", lambda: operator.dead_states().count("parked") == 1, check=consumer.check)
        (letter, _) = cluster.read(f"dlq-{topic}")
        for command, value in (("command-1", b"mended"), ("another", b"wrong")):
            headers = [(name, b"transformed" if name == "x-dlq-state" else v or b"") for name, v in letter.headers] + [
                ("x-dlq-command", command.encode()),
                ("x-dlq-transform", b"fixes:mend"),
            ]
            cluster.write(f"dlq-{topic}", b"k", value, headers=headers)
        audit = Audit("command-1", "ann@desk", 1, None, "fixes:mend")
        operator.ask(Action.REPLAY, b"k", 0, audit=audit)
        wait_for("both ran", lambda: handler.values == [b"poison", b"mended", b"next"], check=consumer.check)
        assert header(handler.records[1], RetryHeader.TRANSFORM) == "fixes:mend"
        wait_for("no lock is left", lambda: not consumer.tracker.locks(topic), check=consumer.check)


def test_a_release_while_the_consumer_is_down_is_obeyed_at_its_start(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings = kafetrain_topic(prefix="orders"), make_settings(max_retries=0)
    operator, handler = Operator(cluster, settings, topic), Handler(b"a")
    cluster.write(topic, b"k", b"a", b"b")
    with KafkaConsumer.resilient(settings, topic, handler) as consumer:
        wait_for("it is parked", lambda: operator.dead_states().count("parked") == 1, check=consumer.check)
    operator.ask(Action.RELEASE, b"k", 0)
    operator.ask(Action.RELEASE, b"k", 0)
    cluster.write(topic, b"k", b"c")
    with KafkaConsumer.resilient(settings, topic, handler) as consumer:
        wait_for("the next runs", lambda: handler.values == [b"a", b"c"], check=consumer.check)
        wait_for("no lock is left", lambda: not consumer.tracker.locks(topic), check=consumer.check)
    tombstone = [r for r in cluster.read(f"redirect-{topic}") if r.value is None and r.key.endswith(b"/0")][-1]
    assert dict(tombstone.headers)["x-retry-by"] == b"ann@desk"
    cluster.check_at_rest(settings, topic)


def test_what_is_not_due_runs_now(cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings) -> None:
    topic = kafetrain_topic(prefix="orders")
    settings = make_settings(backoff=ConstantBackoff(timedelta(hours=1)))
    operator, handler = Operator(cluster, settings, topic), Handler(b"a")
    cluster.write(topic, b"k", b"a", b"b")
    with KafkaConsumer.resilient(settings, topic, handler) as consumer:
        wait_for("it waits", lambda: len(consumer.tracker.locks(topic)) == 1, check=consumer.check)
        operator.ask(Action.RETRY_NOW, b"k", 0)
        wait_for("it ran again", lambda: len(handler.ran) == 2, check=consumer.check)
        handler.bad.clear()
        # It failed again, and waits an hour again.
        wait_for("it waits", lambda: [lk.attempt for lk in consumer.tracker.locks(topic)] == [2], check=consumer.check)
        operator.ask(Action.RETRY_NOW, b"k", 0)
        wait_for("no lock is left", lambda: not consumer.tracker.locks(topic), check=consumer.check)
    assert handler.ran == [(b"a", 0), (b"a", 1), (b"a", 2), (b"b", 0)]
    cluster.check_at_rest(settings, topic)


def test_a_head_that_is_skipped_is_a_dead_letter_and_the_next_runs(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    """Also one that runs: it is waited for. And one whose payload was dropped: it is fetched again."""
    topic = kafetrain_topic(prefix="orders")
    settings = make_settings(backoff=ConstantBackoff(timedelta(hours=1)), max_held_records=4)
    operator, handler = Operator(cluster, settings, topic), Handler(*(b"stuck %d" % i for i in range(20)))
    for i in range(20):
        cluster.write(topic, b"key %d" % i, b"stuck %d" % i, b"next %d" % i)
    with KafkaConsumer.resilient(settings, topic, handler) as consumer:
        wait_for("all wait", lambda: sum(lk.pending for lk in consumer.tracker.locks(topic)) == 40)
        for i in range(20):
            operator.ask(Action.SKIP, b"key %d" % i, 2 * i)
        wait_for("no lock is left", lambda: not consumer.tracker.locks(topic), check=consumer.check)
    assert operator.dead_states() == ["skipped"] * 20
    assert sorted(handler.values[20:]) == sorted(b"next %d" % i for i in range(20))
    cluster.check_at_rest(settings, topic)


def test_a_dead_letter_of_a_key_that_is_not_dead_is_put_into_retry_once(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings = kafetrain_topic(prefix="orders"), make_settings(max_retries=0, free_on_dlq=True)
    operator, handler = Operator(cluster, settings, topic), Handler(b"a")
    cluster.write(topic, b"k", b"a", b"b")
    with KafkaConsumer.resilient(settings, topic, handler) as consumer:
        wait_for("the next ran", lambda: handler.values == [b"a", b"b"], check=consumer.check)
        handler.bad.clear()
        operator.ask(Action.APPEND, b"k", 0, dead_at=(0, 0))
        wait_for("it ran again", lambda: handler.values == [b"a", b"b", b"a"], check=consumer.check)
        wait_for("no lock is left", lambda: not consumer.tracker.locks(topic), check=consumer.check)
    (_, mark) = cluster.read(f"dlq-{topic}")
    assert dict(mark.headers)["x-dlq-replayed"] == b"0/0"
    assert dict(mark.headers)["x-dlq-state"] == b"replayed"
    cluster.check_at_rest(settings, topic)


def test_a_dead_letter_that_was_deleted_is_said_and_stops_nothing(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings, log: list[str]
) -> None:
    topic, settings = kafetrain_topic(prefix="orders"), make_settings(max_retries=0)
    operator, handler = Operator(cluster, settings, topic), Handler(b"a")
    cluster.write(topic, b"k", b"a")
    with KafkaConsumer.resilient(settings, topic, handler) as consumer:
        wait_for("it is dead", lambda: operator.state(0) == "dead", check=consumer.check)
        cluster.delete_records(f"dlq-{topic}", {0: 1})
        operator.ask(Action.REPLAY, b"k", 0)
        wait_for("it is said", lambda: any("was deleted" in line for line in log), check=consumer.check)
        cluster.write(topic, b"other", b"b")
        wait_for("others go on", lambda: handler.values[-1] == b"b", check=consumer.check)
        operator.ask(Action.RELEASE, b"k", 0)
        wait_for("no lock is left", lambda: not consumer.tracker.locks(topic), check=consumer.check)


def test_a_control_record_of_a_newer_version_stops_the_partition(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings = kafetrain_topic(prefix="orders"), make_settings(max_retries=0)
    operator, handler = Operator(cluster, settings, topic), Handler(b"a")
    cluster.write(topic, b"k", b"a")
    consumer = KafkaConsumer.resilient(settings, topic, handler)
    consumer.start()
    try:
        wait_for("it is dead", lambda: operator.state(0) == "dead", check=consumer.check)
        operator.ask("reorder", b"k", 0)  # type: ignore[arg-type]
        wait_for("it stops", lambda: ended(consumer))
    finally:
        with pytest.raises(FatalError, match="asks to 'reorder' a key, which this version does not know"):
            consumer.stop()


def ended(consumer: Any) -> bool:
    try:
        consumer.check()
    except FatalError:
        return True
    return False


class Crashing:
    """A client whose producer writes so much after `arm`, and then nothing any more: as a process that is killed."""

    def __init__(self, client: Any) -> None:
        self._client, self._left = client, 10**9
        self.crashed = False

    def arm(self, writes: int) -> None:
        self._left = writes

    def producer(self) -> Any:
        producer, send = self._client.producer(), self._send
        original = producer.send
        producer.send = lambda record: send(original, record)
        return producer

    def _send(self, original: Any, record: Any) -> Any:
        if self._left == 0:
            self.crashed = True
            raise ClientError("crashed")
        self._left -= 1
        return original(record)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


@pytest.mark.parametrize("writes", range(8))
def test_a_crash_at_any_write_of_a_replay_changes_nothing_of_the_order(
    writes: int, cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    """Four retry records, the entries of what was parked, the head's."""
    topic, settings = kafetrain_topic(prefix="orders"), make_settings(max_retries=0)
    operator, handler = Operator(cluster, settings, topic), Handler(b"a")
    cluster.write(topic, b"k", b"a", b"b", b"c", b"d")
    client = Crashing(KafkaPythonClient(settings))
    consumer = KafkaConsumer.resilient(settings, topic, handler, client=client)
    consumer.start()
    try:
        wait_for("three are parked", lambda: operator.dead_states().count("parked") == 3, check=consumer.check)
        wait_for("their locks have ended", lambda: len(cluster.locks(f"redirect-{topic}")) == 1, check=consumer.check)
        handler.bad.clear()
        client.arm(writes)
        operator.ask(Action.REPLAY, b"k", 0)
        wait_for("it has crashed", lambda: client.crashed)
    finally:
        with pytest.raises(FatalError):
            consumer.stop()
    assert handler.values == [b"a"]
    cluster.write(topic, b"k", b"e")
    with KafkaConsumer.resilient(settings, topic, handler) as consumer:
        wait_for("all ran", lambda: b"e" in handler.values, check=consumer.check)
        wait_for("no lock is left", lambda: not consumer.tracker.locks(topic), check=consumer.check)
    assert handler.values == [b"a", b"a", b"b", b"c", b"d", b"e"]
    cluster.check_at_rest(settings, topic)


@pytest.mark.parametrize("moment", ["while retry records are appended", "while they run"])
def test_a_process_that_is_killed_in_a_replay_leaves_all_of_it_to_the_next(
    moment: str, cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings, tmp_path: Path
) -> None:
    topic, settings = kafetrain_topic(prefix="orders"), make_settings(max_retries=0)
    operator, handler, handled = Operator(cluster, settings, topic), Handler(b"0"), tmp_path / "handled"
    handled.touch()
    cluster.write(topic, b"k", *[b"%d" % i for i in range(200)])
    with KafkaConsumer.resilient(settings, topic, handler) as consumer:
        wait_for("all are parked", lambda: cluster.end_offsets(f"dlq-{topic}")[0] == 200, check=consumer.check)
        wait_for("one is locked", lambda: [lock.pending for lock in consumer.tracker.locks(topic)] == [0])
    operator.ask(Action.REPLAY, b"k", 0)
    asked_at = cluster.end_offsets(f"retry-{topic}")[0]

    def process() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.integration.replay_worker"]
        return subprocess.Popen([*command, *settings.bootstrap_servers, settings.group_id, topic, str(handled)])

    first = process()
    try:
        if moment == "while they run":
            wait_for("some ran", lambda: handled.read_bytes().count(b"\n") > 3)
        else:
            wait_for("one is there", lambda: cluster.end_offsets(f"retry-{topic}")[0] > asked_at)
    finally:
        first.kill()
        first.wait(30)
    ran = handled.read_bytes().split()
    cluster.write(topic, b"k", b"200")
    second = process()
    try:
        wait_for("all ran", lambda: handled.read_bytes().endswith(b"\n200\n"), timeout=120)
        wait_for("no lock is left", lambda: not cluster.locks(f"redirect-{topic}"))
        second.send_signal(signal.SIGTERM)
        assert second.wait(30) == 0
    finally:
        second.kill()
    again = handled.read_bytes().split()[len(ran) :]
    assert ran == [b"%d" % i for i in range(len(ran))]
    assert again == [b"%d" % i for i in range(int(again[0]), 201)]
    assert int(again[0]) in (len(ran), len(ran) - 1), "what ran when it was killed may run again, and nothing before it"
    cluster.check_at_rest(settings, topic)
