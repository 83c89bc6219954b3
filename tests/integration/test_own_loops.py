"""Layer 1: applications that poll by themselves, with a consumer of theirs, and ask a tracker what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from kafetrain import (
    ErrorTracker,
    NotRetriableError,
    NotTrackedError,
    Outcome,
    Pause,
    Record,
    RetriableError,
    RetryManager,
    as_record,
    get_retry_attempt,
)
from kafetrain.clock import Clock, SystemClock
from tests.integration.journal import Journal
from tests.waiting import wait_for

if TYPE_CHECKING:
    from kafetrain import Handler, Settings
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings
from tests.integration.own_loops import (
    TIMEOUT_MS,
    OwnRecords,
    branching_loop,
    fail_as_told,
    own_consumer,
    running,
    short_loop,
    subscribe,
)

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka


@pytest.mark.parametrize(
    ("consumers", "style", "listening"),
    [
        ("one consumer", "branch", True),
        ("one consumer", "process", False),
        ("two consumers", "branch", False),
        ("two consumers", "process", True),
    ],
)
def test_loops_of_ones_own_keep_the_order_of_keys(
    cluster: Cluster,
    kafetrain_topic: TopicFactory,
    make_settings: MakeSettings,
    consumers: str,
    style: str,
    listening: bool,
) -> None:
    topic, settings, journal = kafetrain_topic(2, prefix="orders"), make_settings(), Journal()
    written = cluster.write_all(
        topic, [(at % 2, b"key-%d" % (at % 6), b"m fails %d" % (at % 4 if at % 3 == 0 else 0)) for at in range(36)]
    )
    with ErrorTracker(settings) as tracker:
        listener = tracker.rebalance_listener() if listening else None
        tracker.start_tracking(topic)
        handle = OwnRecords(journal, fail_as_told)
        loop = branching_loop(tracker, handle) if style == "branch" else short_loop(tracker, handle)
        retry_topic = tracker.get_retry_topic(topic)
        if consumers == "one consumer":
            subscriptions = [(settings.group_id, [topic, retry_topic])]
        else:
            subscriptions = [(settings.group_id, [topic]), (tracker.get_retry_group(), [retry_topic])]
        own = [own_consumer(cluster.broker, group, consumer_timeout_ms=TIMEOUT_MS) for group, _ in subscriptions]
        for consumer, (_, topics) in zip(own, subscriptions, strict=True):
            subscribe(consumer, *topics, listener=listener)
        with running(loop, *own) as check:
            wait_for("all have succeeded", lambda: len(journal.places("ended")) == 36, check=check)
            wait_for("no key is locked", lambda: not tracker.locks(topic), check=check)

    journal.no_loss(written)
    journal.key_order(written)
    journal.honest_attempts()
    journal.once()
    assert cluster.locks(f"redirect-{topic}") == {}
    committed = cluster.committed(settings.group_id, topic)
    assert {partition: at for partition, (at, _) in committed.items()} == {0: 18, 1: 18}
    assert all(metadata.startswith("kafetrain:") for _, metadata in committed.values())


@contextmanager
def by_hand(
    cluster: Cluster, settings: Settings, topic: str, clock: Clock | None = None
) -> Iterator[tuple[ErrorTracker, Callable[[], Any], Callable[[], Any]]]:
    """A tracker, and functions that give the next source record and the next retry record."""
    with ErrorTracker(settings, clock=clock) as tracker:
        tracker.start_tracking(topic)
        source = own_consumer(cluster.broker, settings.group_id)
        retry = own_consumer(cluster.broker, tracker.get_retry_group())
        subscribe(source, topic)
        subscribe(retry, tracker.get_retry_topic(topic))
        try:
            yield tracker, lambda: next(source), lambda: next(retry)
        finally:
            source.close(autocommit=False)
            retry.close(autocommit=False)


class AdjustableClock(SystemClock):
    """The machine's, set forward by the test."""

    ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms

    def an_hour_later(self) -> None:
        self.ahead_ms += 3_600_000


def raise_(error: Exception) -> Handler:
    def handle(record: Record) -> None:
        raise error

    return handle


def succeed(record: Record) -> None:
    """A handler that does."""


def test_each_outcome_of_process_says_what_became_of_the_record(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings = kafetrain_topic(prefix="orders"), make_settings(max_retries=1)
    cluster.write(topic, b"a", b"m1", b"m2", b"m3")
    cluster.write(topic, b"b", b"m4", b"m5")
    in_an_hour = raise_(RetriableError("no", delay=timedelta(hours=1)))
    clock = AdjustableClock()
    with by_hand(cluster, settings, topic, clock) as (tracker, source, retry):
        m1, m2, m3, m4, m5 = (source() for _ in range(5))
        assert tracker.process(m1, in_an_hour) is Outcome.REDIRECTED
        assert tracker.is_in_retry_chain(m2)
        assert tracker.process(m2, succeed) is Outcome.SIDELINED
        assert tracker.process(m4, succeed) is Outcome.SUCCEEDED
        assert tracker.process(m1, succeed) is Outcome.SIDELINED, "delivered again, and still behind its lock"
        r1, r2, again = retry(), retry(), retry()
        assert tracker.process(r1, succeed) is Outcome.NOT_DUE
        assert tracker.process(r2, succeed) is Outcome.NOT_DUE, "its head's time has not come"
        assert tracker.due_at(r2) == tracker.due_at(r1) > datetime.now(timezone.utc)
        assert tracker.due_at(m3) < datetime.now(timezone.utc)
        clock.an_hour_later()
        with pytest.raises(Pause):
            tracker.process(r1, raise_(Pause(timedelta(seconds=1))))
        assert get_retry_attempt(r1) == 1
        assert tracker.process(r2, succeed) is Outcome.SIDELINED, "not its turn: appended behind"
        assert tracker.process(r1, succeed) is Outcome.SUCCEEDED
        assert tracker.process(again, succeed) is Outcome.ALREADY_ENDED, "the copy of m1"
        assert tracker.process(m1, succeed) is Outcome.ALREADY_ENDED, "so it is in its own topic"
        assert tracker.process(retry(), in_an_hour) is Outcome.REDIRECTED
        assert tracker.process(r2, succeed) is Outcome.NOT_DUE
        clock.an_hour_later()
        assert tracker.process(r2, raise_(ValueError("no"))) is Outcome.DEAD_LETTERED
        assert tracker.process(m3, succeed) is Outcome.SIDELINED
        assert tracker.process(m5, raise_(NotRetriableError("never"))) is Outcome.DEAD_LETTERED
        r3: Record = wait_for("m3 comes", lambda: record if (record := retry()).value == b"m3" else None)
        assert tracker.process(r3, succeed) is Outcome.PARKED

    assert cluster.dead_places(f"dlq-{topic}") == {(0, 1): "exhausted", (0, 4): "not-retriable", (0, 2): "parked"}


def test_a_deferred_record_is_delivered_again_when_it_is_due_and_not_before(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings, journal = kafetrain_topic(prefix="orders"), make_settings(), Journal()
    written = cluster.write(topic, b"a", b"m1", b"m2")
    outcomes: list[tuple[bytes, Outcome]] = []

    def handle(record: Record) -> None:
        if get_retry_attempt(record) == 0 and record.value == b"m1":
            raise RetriableError("later", delay=timedelta(seconds=1))

    with ErrorTracker(settings) as tracker:
        tracker.start_tracking(topic)
        consumer = own_consumer(cluster.broker, settings.group_id, consumer_timeout_ms=TIMEOUT_MS)
        subscribe(consumer, topic, tracker.get_retry_topic(topic))
        with running(short_loop(tracker, OwnRecords(journal, handle), outcomes), consumer) as check:
            wait_for("both have succeeded", lambda: journal.offsets("ended") == [0, 1], check=check)

    _, failed_at, retried_at, _ = (event.time for event in journal.events if event.offset == 0)
    assert retried_at - failed_at >= 1
    assert outcomes[:2] == [(b"m1", Outcome.REDIRECTED), (b"m2", Outcome.SIDELINED)]
    assert outcomes.count((b"m1", Outcome.NOT_DUE)) <= 2, "it was not asked for again and again"
    journal.key_order(written)


def test_redirects_of_a_batch_share_their_round_trips_and_keep_each_key_in_order(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings = kafetrain_topic(prefix="orders"), make_settings()
    cluster.write_all(topic, [(0, b"key-%d" % (at % 4), b"m%d" % at) for at in range(20)])
    with by_hand(cluster, settings, topic) as (tracker, source, _):
        records = [source() for _ in range(20)]
        futures = []
        for at, record in enumerate(records):
            assert tracker.is_in_retry_chain(record) == (at >= 4), "seen at once, before it is durable"
            futures.append(tracker.redirect_async(record, None if at >= 4 else ValueError("no")))
        outcomes = [future.result(30) for future in futures]
        assert outcomes == [Outcome.REDIRECTED] * 4 + [Outcome.SIDELINED] * 16
        assert [lock.pending for lock in tracker.locks(topic)] == [5] * 4

    entries = [record for record in cluster.read(f"redirect-{topic}") if not record.key.startswith(b"group/")]
    log = [int(record.key.rsplit(b"/", 1)[1]) for record in entries]
    retries = cluster.read(f"retry-{topic}")
    assert (len(entries), len(retries)) == (20, 20)
    for key in range(4):
        assert [offset for offset in log if offset % 4 == key] == list(range(key, 20, 4))
    at_log = {record.offset: record.key for record in entries}
    for record in retries:
        headers = dict(record.headers)
        assert at_log[int(headers["x-retry-lock-offset"])] == headers["x-retry-id"], "its entry, which is there first"


def test_a_loop_over_retry_records_passes_over_what_is_not_its_own(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    """Another group's record, and one that is no retry record at all."""
    topic, settings, other = kafetrain_topic(prefix="orders"), make_settings(), make_settings()
    cluster.write(topic, b"a", b"m1")
    with by_hand(cluster, other, topic) as (tracker, source, _):
        tracker.redirect(source(), ValueError("no"))
        theirs = cluster.locks(f"redirect-{topic}")
    cluster.write(f"retry-{topic}", b"k", b"no retry record", headers=[("x-retry-id", b"nonsense")])

    with by_hand(cluster, settings, topic) as (tracker, _, retry):
        foreign, malformed = retry(), retry()
        for record in (foreign, malformed):
            assert tracker.is_in_retry_chain(record)
            assert tracker.due_at(record) < datetime.now(timezone.utc)
        assert tracker.process(foreign, succeed) is Outcome.ALREADY_ENDED
        assert tracker.process(malformed, succeed) is Outcome.DEAD_LETTERED
        tracker.free(foreign)

    assert cluster.locks(f"redirect-{topic}") == theirs
    assert [letter.value for letter in cluster.read(f"dlq-{topic}")] == [b"no retry record"]


def test_what_is_sent_to_the_dead_letters_by_hand_is_dead_whatever_its_error(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings = kafetrain_topic(prefix="orders"), make_settings(free_on_dlq=True)
    cluster.write(topic, b"a", b"m1", b"m2", b"m3")
    with by_hand(cluster, settings, topic) as (tracker, source, retry):
        m1, m2, m3 = source(), source(), source()
        assert tracker.send_to_dlq(m1, ValueError("by hand")) is Outcome.DEAD_LETTERED
        assert not tracker.is_in_retry_chain(m2), "the key is free"
        assert tracker.redirect(m2, ValueError("no")) is Outcome.REDIRECTED
        r2 = retry()
        wait_for("it is due", lambda: tracker.due_at(r2) <= datetime.now(timezone.utc))
        assert tracker.is_in_retry_chain(m3)
        assert tracker.send_to_dlq(r2, ValueError("by hand")) is Outcome.DEAD_LETTERED
        assert tracker.send_to_dlq(r2, ValueError("twice")) is Outcome.ALREADY_ENDED
        assert not tracker.is_in_retry_chain(m3)

    letters = cluster.read(f"dlq-{topic}")
    headers = [dict(letter.headers) for letter in letters]
    assert [letter.value for letter in letters] == [b"m1", b"m2"]
    assert [found["x-dlq-attempts"] for found in headers] == [b"1", b"2"]
    assert {found["x-dlq-reason"] for found in headers} == {b"by hand"}


def test_records_of_other_clients_are_records_too(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    """`resilient_handler` wraps a handler of any framework; here one over confluent-kafka."""
    confluent_kafka = pytest.importorskip("confluent_kafka")
    topic, settings, seen = kafetrain_topic(prefix="orders"), make_settings(), []
    cluster.write(topic, b"a", b"m1", b"m2")
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": cluster.broker.bootstrap_servers,
            "group.id": settings.group_id,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    with ErrorTracker(settings) as tracker:
        tracker.start_tracking(topic)

        def handle(record: Record) -> None:
            seen.append((record.offset, get_retry_attempt(record)))
            if get_retry_attempt(record) == 0:
                raise ValueError("no")

        resilient = tracker.resilient_handler(handle)
        consumer.subscribe([topic])
        outcomes = [resilient(as_record(consumer.poll(30))) for _ in range(2)]
        consumer.close()
        assert outcomes == [Outcome.REDIRECTED, Outcome.SIDELINED]
        with RetryManager(tracker, handle) as manager:
            manager.start_retry_consumer(topic)
            wait_for("no key is locked", lambda: not tracker.locks(topic), check=manager.check)
    assert seen == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_a_tracker_that_does_not_track_says_so(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, other, settings = kafetrain_topic(prefix="orders"), kafetrain_topic(prefix="other"), make_settings()
    cluster.write(topic, b"a", b"m1")
    cluster.write(other, b"a", b"m1")
    consumer = own_consumer(cluster.broker, settings.group_id)
    subscribe(consumer, topic, other)
    records = {record.topic: record for record in (next(consumer), next(consumer))}
    tracker = ErrorTracker(settings)

    def refuses(record: Record) -> None:
        calls: list[Callable[[], object]] = [
            lambda: tracker.is_in_retry_chain(record),
            lambda: tracker.redirect(record),
            lambda: tracker.redirect_async(record),
            lambda: tracker.process(record, succeed),
            lambda: tracker.send_to_dlq(record, ValueError("no")),
            lambda: tracker.resilient_handler(succeed)(record),
            lambda: tracker.get_retry_topic(record.topic),
            lambda: tracker.locks(record.topic),
        ]
        for call in calls:
            with pytest.raises(NotTrackedError, match="start_tracking"):
                call()

    refuses(records[topic])
    with tracker:
        tracker.start_tracking(topic)
        refuses(records[other])
        assert tracker.process(records[topic], succeed) is Outcome.SUCCEEDED
    refuses(records[topic])
    consumer.close(autocommit=False)
