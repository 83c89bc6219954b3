"""A dependency that is down: the breaker on every layer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest

from kafetrain import (
    Breaker,
    ConstantBackoff,
    ErrorHandlingMiddleware,
    ErrorTracker,
    KafkaConsumer,
    LoggingMiddleware,
    Outcome,
    Pause,
    Record,
    get_retry_attempt,
)
from tests.integration.journal import Journal
from tests.waiting import wait_for

if TYPE_CHECKING:
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka

KEYS = 20
QUICK = Breaker(keys=KEYS, probe_after=timedelta(milliseconds=100), probe_at_most=timedelta(milliseconds=400))


class Database:
    """What handlers need. Counts the calls that it refuses, by record."""

    def __init__(self, *, futures: bool = False) -> None:
        self.up = threading.Event()
        self.refused: list[tuple[int, int, int]] = []
        self._futures = futures

    def __call__(self, record: Record) -> object:
        error = None
        if not self.up.is_set():
            self.refused.append((record.partition, record.offset, get_retry_attempt(record)))
            error = ConnectionError("refused")
        if self._futures:
            future: Future[None] = Future()
            threading.Thread(target=end, args=(future, error)).start()
            return future
        if error is not None:
            raise error
        return None


def end(future: Future[None], error: Exception | None) -> None:
    if future.set_running_or_notify_cancel():
        future.set_result(None) if error is None else future.set_exception(error)


def probes(database: Database, count: int) -> Callable[[], bool]:
    """A condition: so many more calls are refused from now on."""
    before = len(database.refused)
    return lambda: len(database.refused) >= before + count


@pytest.mark.parametrize(("concurrency", "futures"), [(1, False), (4, False), (1, True)])
def test_an_outage_with_many_keys_leaves_no_flood_no_dead_letters_and_the_order(
    cluster: Cluster,
    kafetrain_topic: TopicFactory,
    make_settings: MakeSettings,
    log: list[str],
    concurrency: int,
    futures: bool,
) -> None:
    topic, journal, database = kafetrain_topic(3, prefix="orders"), Journal(), Database(futures=futures)
    settings = make_settings(breaker=QUICK, concurrency=concurrency)
    keys = [(number % 3, b"key-%d" % number, b"m") for number in range(2000 if not futures else 300)]
    database.up.set()
    written = cluster.write_all(topic, keys[:100])
    consumer = KafkaConsumer.resilient(settings, topic, journal.recording(database), middlewares=[LoggingMiddleware()])
    with consumer:
        wait_for("all is well", lambda: len(journal.places("ended")) == 100, check=consumer.check)
        database.up.clear()
        written += cluster.write_all(topic, keys + keys)
        wait_for("the breaker opens", lambda: any("breaker open" in line for line in log), check=consumer.check)
        in_flight = KEYS + 100 if futures else KEYS + concurrency
        assert len(database.refused) <= 3 * in_flight
        wait_for("it is probed again and again", probes(database, 5), check=consumer.check)
        opened = len(log)
        database.up.set()
        wait_for("all have succeeded", lambda: len(set(journal.places("ended"))) == len(written), check=consumer.check)
        wait_for("no key is locked", lambda: not consumer.tracker.locks(topic), check=consumer.check)

    journal.no_loss(written)
    journal.key_order(written)
    journal.once()
    retried = cluster.read(f"retry-{topic}")
    assert len({record.key for record in retried}) >= KEYS - 1
    assert len(retried) < 2 * KEYS
    assert cluster.read(f"dlq-{topic}") == []
    assert max(attempt for _, _, attempt in database.refused) <= 5, "of max_retries"
    assert sum("breaker open" in line for line in log) == 1
    assert log[opened:] == [], "a pause is no warning, and nor is the end"
    cluster.check_at_rest(settings, topic)


def test_retries_open_it_too_and_then_neither_side_writes_or_counts(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings, log: list[str]
) -> None:
    topic, journal, database = kafetrain_topic(prefix="orders"), Journal(), Database()
    breaker = Breaker(keys=8, probe_after=timedelta(milliseconds=100), probe_at_most=timedelta(milliseconds=200))
    settings = make_settings(breaker=breaker, max_retries=None)

    def handle(record: Record) -> object:
        if get_retry_attempt(record) or record.value == b"late":
            return database(record)
        if record.value == b"fails":
            raise ValueError("the first time")
        return None

    written = cluster.write_all(
        topic, [(0, b"%d-%d" % (at, good), b"good" if good else b"fails") for at in range(10) for good in (0, 1)]
    )
    with KafkaConsumer.resilient(settings, topic, journal.recording(handle)) as consumer:
        wait_for("the breaker opens", lambda: any("breaker open" in line for line in log), check=consumer.check)
        wait_for("it is probed", probes(database, 2), check=consumer.check)
        locked = {lock.key: lock.attempt for lock in consumer.tracker.locks(topic)}
        ends = cluster.end_offsets(f"redirect-{topic}"), cluster.end_offsets(f"retry-{topic}")
        written += cluster.write_all(topic, [(0, b"new-%d" % at, b"late") for at in range(30)])
        wait_for("it is probed again", probes(database, 5), check=consumer.check)
        assert {lock.key: lock.attempt for lock in consumer.tracker.locks(topic)} == locked
        assert len(locked) == 10
        assert (cluster.end_offsets(f"redirect-{topic}"), cluster.end_offsets(f"retry-{topic}")) == ends
        probed = {(partition, offset) for partition, offset, _ in database.refused[-6:]}
        assert len(probed) > 1, "not the same record each time"
        database.up.set()
        wait_for("all have succeeded", lambda: len(journal.offsets("ended")) == 50, check=consumer.check)
        wait_for("no key is locked", lambda: not consumer.tracker.locks(topic), check=consumer.check)

    journal.no_loss(written)
    journal.key_order(written)
    assert cluster.read(f"dlq-{topic}") == []
    cluster.check_at_rest(settings, topic)


def test_one_key_that_fails_for_ever_opens_nothing(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings, log: list[str]
) -> None:
    topic, journal = kafetrain_topic(prefix="orders"), Journal()
    settings = make_settings(breaker=Breaker(keys=2), max_retries=3)

    def handle(record: Record) -> None:
        if record.key == b"bad":
            raise ConnectionError("refused")

    cluster.write_all(topic, [(0, b"good-%d" % at, b"m") if at % 5 else (0, b"bad", b"m") for at in range(20)])
    with KafkaConsumer.resilient(settings, topic, journal.recording(handle)) as consumer:
        wait_for("it is dead", lambda: cluster.read(f"dlq-{topic}"), check=consumer.check)
        wait_for("the others succeed", lambda: len(journal.offsets("ended")) == 16, check=consumer.check)
    assert journal.attempts(0) == [0, 1, 2, 3]
    assert not any("breaker" in line for line in log)


def test_a_stream_pauses_as_well(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings, log: list[str]
) -> None:
    topic, settings = kafetrain_topic(prefix="orders"), make_settings(breaker=QUICK)
    written = cluster.write_all(topic, [(0, b"key-%d" % at, b"m") for at in range(100)])
    ends, succeeded = 0, list[int]()
    with ErrorTracker(settings) as tracker:
        tracker.start_tracking(topic)
        consumer = KafkaConsumer(settings).with_middlewares(ErrorHandlingMiddleware(tracker))
        for record in consumer.stream(topic):
            ends += any("breaker open" in line for line in log)
            if ends < len(written) - KEYS + 3:  # the others were handed over before it opened; then it is probed
                consumer.fail(ConnectionError("refused"))
                continue
            succeeded.append(record.offset)
            if len(succeeded) == len(written):
                consumer.stop()
    assert sorted(succeeded) == list(range(100))
    assert cluster.read(f"dlq-{topic}") == []
    cluster.check_at_rest(settings, topic)


def test_a_loop_of_ones_own_is_given_the_pause_on_both_sides(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, database = kafetrain_topic(prefix="orders"), Database()
    breaker = Breaker(keys=3, probe_after=timedelta(milliseconds=200))
    settings = make_settings(breaker=breaker, backoff=ConstantBackoff(timedelta(milliseconds=1)))
    cluster.write_all(topic, [(0, b"key-%d" % at, b"m") for at in range(4)])
    with ErrorTracker(settings) as tracker:
        tracker.start_tracking(topic)
        resilient = tracker.resilient_handler(database)
        first, second, third, fourth = cluster.read(topic)
        assert [resilient(first), resilient(second)] == [Outcome.REDIRECTED] * 2
        with pytest.raises(Pause):
            tracker.process(third, database)
        retried = cluster.read(tracker.get_retry_topic(topic))
        assert len(retried) == 2

        def process(record: Record) -> object:
            try:
                outcome = resilient(record)
            except Pause as pause:
                return pause
            return None if outcome is Outcome.NOT_DUE else outcome

        for record in (third, fourth, *retried):
            pause = wait_for("it is due", partial(process, record))
            assert isinstance(pause, Pause)
            assert pause.retry_in <= timedelta(seconds=1)
        assert len(database.refused) <= 5
        database.up.set()
        for record in (third, *retried, fourth):
            ended = wait_for("it closes", lambda record=record: no_pause(process(record)))  # type: ignore[misc]  # mypy infers no such lambda
            assert ended is Outcome.SUCCEEDED
        assert tracker.locks(topic) == []


def no_pause(found: object) -> object:
    return None if isinstance(found, Pause) else found
