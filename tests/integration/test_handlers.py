"""What a handler may do: take long, return a future, ask for a pause, end the program."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import pytest

from kafetrain import (
    ConfigurationError,
    ErrorTracker,
    KafkaConsumer,
    Pause,
    Record,
    RetryManager,
    get_retry_attempt,
)
from kafetrain.errors import FatalError
from tests.integration.journal import Journal
from tests.waiting import wait_for

if TYPE_CHECKING:
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka


def fail_first(record: Record) -> None:
    if get_retry_attempt(record) == 0:
        raise ValueError("the first time")


def test_a_handler_that_takes_longer_than_the_poll_interval_keeps_its_partition(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    """On both sides at once: one handler of either takes its time, and nothing runs a second time."""
    options = {"session_timeout_ms": 6_000, "max_poll_interval_ms": 2_000, "delivery_timeout_ms": 1_500}
    topic, settings, journal = kafetrain_topic(prefix="orders"), make_settings(client_options=options), Journal()
    finish = threading.Event()

    def handle(record: Record) -> None:
        if record.value == b"m1":
            fail_first(record)
        assert finish.wait(30)

    written = cluster.write(topic, b"retried", b"m1", b"m2") + cluster.write(topic, b"slow", b"m3", b"m4")
    with KafkaConsumer.resilient(settings, topic, journal.recording(handle)) as consumer:
        wait_for("both run", lambda: journal.offsets("started") in ([0, 0, 2], [0, 2, 0]), check=consumer.check)
        late = max(event.time for event in journal.events) + 3
        wait_for("the poll interval is over, and half of the next", lambda: journal.now() > late, check=consumer.check)
        finish.set()
        wait_for("all have succeeded", lambda: len(journal.offsets("ended")) == 4, check=consumer.check)

    assert sorted(journal.offsets("started")) == [0, 0, 1, 2, 3]
    journal.key_order(written)
    journal.once()
    cluster.check_at_rest(settings, topic)


# Futures


class Work:
    """Hands out a future for each run; the test ends them."""

    def __init__(self) -> None:
        self.begun: SimpleQueue[tuple[int, Future[None]]] = SimpleQueue()

    def __call__(self, record: Record) -> Future[None]:
        future: Future[None] = Future()
        self.begun.put((record.offset, future))
        return future

    def next(self, offset: int) -> Future[None]:
        """The next run, which must be this record's."""
        begun, future = self.begun.get(timeout=90)
        assert begun == offset
        return future


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_record_is_complete_when_the_future_of_its_handler_is_and_fails_with_it(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings, concurrency: int
) -> None:
    topic, settings, journal = kafetrain_topic(prefix="orders"), make_settings(concurrency=concurrency), Journal()
    work = Work()
    written = cluster.write(topic, b"a", b"m1", b"m2")
    with KafkaConsumer.resilient(settings, topic, journal.recording(work)) as consumer:
        first = work.next(0)
        written += cluster.write(topic, b"b", b"m3")
        other = work.next(2)  # runs beside the first, and m2 does not
        first.set_exception(ValueError("no"))
        again = work.next(0)
        other.set_result(None)
        again.set_exception(ValueError("no"))
        work.next(0).set_result(None)
        work.next(1).set_result(None)
        wait_for("no key is locked", lambda: not consumer.tracker.locks(topic), check=consumer.check)

    assert journal.attempts(0) == [0, 1, 2]
    journal.no_loss(written)
    journal.key_order(written)
    cluster.check_at_rest(settings, topic)


def test_a_future_that_is_not_done_at_the_stop_leaves_its_record_to_the_next_start(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings = kafetrain_topic(prefix="orders"), make_settings(shutdown_timeout=timedelta(seconds=1))
    work = Work()
    cluster.write(topic, b"a", b"m1")
    cluster.write(topic, b"b", b"m2")
    with KafkaConsumer.resilient(settings, topic, work):
        work.next(0).set_exception(ValueError("no"))
        retried, fresh = sorted([work.begun.get(timeout=90), work.begun.get(timeout=30)], key=lambda run: run[0])
        assert (retried[0], fresh[0]) == (0, 1)
    assert cluster.committed(settings.group_id, topic)[0][0] == 1, "m1 is in the retry topic, m2 is open"

    journal = Journal()
    with KafkaConsumer.resilient(settings, topic, journal.recording(lambda record: None)) as consumer:
        wait_for("both have succeeded", lambda: len(journal.offsets("ended")) == 2, check=consumer.check)
    assert (journal.attempts(0), journal.attempts(1)) == ([1], [0])
    cluster.check_at_rest(settings, topic)


# Pauses


def test_a_pause_stops_the_partition_and_runs_the_same_record_again_counting_nothing(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings, journal = kafetrain_topic(2, prefix="orders"), make_settings(), Journal()
    pauses = iter([True, True])

    def handle(record: Record) -> None:
        if record.key == b"a" and next(pauses, False):
            raise Pause(retry_in=timedelta(milliseconds=300))

    written = cluster.write(topic, b"a", b"m1", b"m2") + cluster.write(topic, b"b", b"m3")
    written += cluster.write(topic, b"c", b"other partition", partition=1)
    with KafkaConsumer.resilient(settings, topic, journal.recording(handle)) as consumer:
        wait_for("all have succeeded", lambda: len(journal.places("ended")) == 4, check=consumer.check)

    events = [event for event in journal.events if event.partition == 0]
    assert [e.offset for e in events if e.kind == "started"] == [0, 0, 0, 1, 2], "in place, before all others"
    assert [e.kind for e in events[:6]] == ["started", "abandoned"] * 2 + ["started", "ended"]
    assert journal.attempts(0) == [0, 0, 0]
    assert events[2].time - events[1].time >= 0.3
    assert cluster.read(f"retry-{topic}") == []
    assert cluster.locks(f"redirect-{topic}") == {}
    journal.no_loss(written)
    cluster.check_at_rest(settings, topic)


def test_a_pause_holds_up_its_partition_for_handlers_on_other_threads_too(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings, journal = kafetrain_topic(2, prefix="orders"), make_settings(concurrency=3), Journal()
    pauses = iter([True])

    def handle(record: Record) -> None:
        if record.key == b"a" and next(pauses, False):
            raise Pause(retry_in=timedelta(seconds=1))

    written = cluster.write(topic, b"a", b"m1", b"m2")
    with KafkaConsumer.resilient(settings, topic, journal.recording(handle)) as consumer:
        wait_for("it pauses", lambda: journal.places("abandoned"), check=consumer.check)
        written += cluster.write(topic, b"b", b"m3", b"m4") + cluster.write(topic, b"c", b"m5", partition=1)
        wait_for("all have succeeded", lambda: len(journal.places("ended")) == 5, check=consumer.check)

    (paused_at,) = (event.time for event in journal.events if event.kind == "abandoned")
    later = [e for e in journal.events if e.kind == "started" and e.partition == 0 and e.time > paused_at]
    assert sorted(event.offset for event in later) == [0, 1, 2, 3]
    assert min(event.time for event in later) - paused_at >= 1
    journal.key_order(written)
    cluster.check_at_rest(settings, topic)


@pytest.mark.parametrize("attempt", [0, 1], ids=["source", "retry"])
@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_future_that_ends_with_a_pause_asks_for_one(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings, attempt: int, concurrency: int
) -> None:
    topic, settings, journal = kafetrain_topic(prefix="orders"), make_settings(concurrency=concurrency), Journal()
    pauses = iter([True])

    def handle(record: Record) -> Future[None]:
        future: Future[None] = Future()
        if get_retry_attempt(record) == attempt and next(pauses, False):
            future.set_exception(Pause(retry_in=timedelta(milliseconds=200)))
        elif attempt == 1 and record.value == b"m1" and get_retry_attempt(record) == 0:
            future.set_exception(ValueError("no"))
        else:
            future.set_result(None)
        return future

    written = cluster.write(topic, b"a", b"m1", b"m2")
    with KafkaConsumer.resilient(settings, topic, journal.recording(handle)) as consumer:
        wait_for("both have succeeded", lambda: journal.offsets("ended") == [0, 1], check=consumer.check)
    assert journal.attempts(0) == ([0, 0] if attempt == 0 else [0, 1, 1])
    journal.key_order(written)
    cluster.check_at_rest(settings, topic)


def test_a_pause_of_a_retry_holds_up_the_retries_of_its_partition_and_counts_nothing(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings, journal = kafetrain_topic(prefix="orders"), make_settings(max_retries=1), Journal()
    pauses = iter([True])

    def handle(record: Record) -> None:
        fail_first(record)
        if record.key == b"a" and next(pauses, False):
            raise Pause(retry_in=timedelta(seconds=1))

    written = cluster.write(topic, b"a", b"m1")
    with KafkaConsumer.resilient(settings, topic, journal.recording(handle)) as consumer:
        wait_for("it pauses", lambda: journal.offsets("abandoned"), check=consumer.check)
        written += cluster.write(topic, b"b", b"m2")
        wait_for("all have succeeded", lambda: len(journal.offsets("ended")) == 2, check=consumer.check)

    (paused_at,) = (event.time for event in journal.events if event.kind == "abandoned")
    later = [e for e in journal.events if e.kind == "started" and e.attempt == 1 and e.time > paused_at]
    assert sorted(event.offset for event in later) == [0, 1]
    assert min(event.time for event in later) - paused_at >= 1
    assert journal.attempts(0) == [0, 1, 1]
    journal.no_loss(written)
    cluster.check_at_rest(settings, topic)


# The end of the program


@pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("attempt", [0, 1], ids=["source", "retry"])
def test_a_handler_that_ends_the_program_stops_it_and_counts_nothing(
    cluster: Cluster,
    kafetrain_topic: TopicFactory,
    make_settings: MakeSettings,
    end: type[BaseException],
    attempt: int,
) -> None:
    topic, settings, journal = kafetrain_topic(prefix="orders"), make_settings(), Journal()

    def handle(record: Record) -> None:
        if get_retry_attempt(record) == attempt:
            raise end
        fail_first(record)

    written = cluster.write(topic, b"a", b"m1", b"m2")
    with pytest.raises(end):
        KafkaConsumer.resilient(settings, topic, journal.recording(handle)).run()
    assert journal.offsets("started")[-1] == 0
    assert journal.events[-1].kind == "abandoned"
    assert not any(thread.name.startswith("kafetrain-") for thread in threading.enumerate())

    journal.interrupted()
    with KafkaConsumer.resilient(settings, topic, journal.recording(lambda record: None)) as consumer:
        wait_for("both have succeeded", lambda: len(journal.offsets("ended")) == 2, check=consumer.check)
    assert journal.attempts(0)[-1] == attempt
    journal.no_loss(written)
    journal.key_order(written)


@pytest.mark.parametrize("attempt", [0, 1], ids=["source", "retry"])
def test_a_handler_may_stop_its_own_consumer(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings, attempt: int
) -> None:
    """It only asks: the handler's own record still ends, and is committed."""
    topic, settings, journal = kafetrain_topic(prefix="orders"), make_settings(), Journal()
    cluster.write(topic, b"a", b"m1")

    def handle(record: Record) -> None:
        if get_retry_attempt(record) == attempt:
            asked = Journal.now()
            consumer.stop()
            took.append(Journal.now() - asked)
        else:
            fail_first(record)

    took: list[float] = []
    consumer = KafkaConsumer.resilient(settings, topic, journal.recording(handle))
    consumer.run()
    assert took[0] < 1
    assert journal.offsets("ended") == [0]
    cluster.check_at_rest(settings, topic)


# What is refused


async def asynchronous(record: Record) -> None:
    """No handler."""


class AsynchronousCall:
    async def __call__(self, record: Record) -> None:
        """No handler."""


def test_a_coroutine_function_is_refused_wherever_a_handler_is_taken(make_settings: MakeSettings) -> None:
    settings = make_settings()
    takers: list[Callable[[Any], object]] = [
        lambda handler: KafkaConsumer.resilient(settings, "orders", handler),
        lambda handler: KafkaConsumer(settings).consume("orders", handler),
        lambda handler: RetryManager(ErrorTracker(settings), handler),
        lambda handler: ErrorTracker(settings).resilient_handler(handler),
    ]
    for handler in (asynchronous, AsynchronousCall(), "no function"):
        for take in takers:
            with pytest.raises(ConfigurationError, match="handler"):
                take(handler)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_a_returned_awaitable_that_nobody_awaits_is_a_dead_letter(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings = kafetrain_topic(prefix="orders"), make_settings()
    cluster.write(topic, b"a", b"m1")
    with KafkaConsumer.resilient(settings, topic, lambda record: asynchronous(record)) as consumer:
        (letter,) = wait_for("it is dead", lambda: cluster.read(f"dlq-{topic}"), check=consumer.check)
    headers = dict(letter.headers)
    assert (headers["x-dlq-error-type"], headers["x-dlq-state"]) == (b"NotRetriableError", b"not-retriable")
    assert b"concurrent.futures.Future" in headers["x-dlq-reason"]


@pytest.mark.parametrize("attempt", [0, 1], ids=["source", "retry"])
def test_a_future_that_the_handler_cancels_stops_the_consumer_and_completes_nothing(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings, attempt: int
) -> None:
    topic, settings = kafetrain_topic(prefix="orders"), make_settings()

    def handle(record: Record) -> Future[None]:
        future: Future[None] = Future()
        if get_retry_attempt(record) == attempt:
            future.cancel()
        else:
            future.set_exception(ValueError("no"))
        return future

    cluster.write(topic, b"a", b"m1")
    with (
        pytest.raises(FatalError, match=rf"{topic}\[0\]@0: the future .* was cancelled"),
        KafkaConsumer.resilient(settings, topic, handle) as consumer,
    ):
        wait_for("it stops", lambda: False, check=consumer.check)
    group, read = (settings.retry_group_id, f"retry-{topic}") if attempt else (settings.group_id, topic)
    assert cluster.committed(group, read).get(0, (0, ""))[0] == 0
