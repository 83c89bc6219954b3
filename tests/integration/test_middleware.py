"""Layer 3 by hand: middlewares around a handler, with and without the one that handles errors."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

import pytest

from kafetrain import (
    ConfigurationError,
    ErrorHandlingMiddleware,
    ErrorTracker,
    Handler,
    KafkaConsumer,
    LoggingMiddleware,
    Middleware,
    NotRetriableError,
    NotTrackedError,
    Outcome,
    Record,
    RetryManager,
    get_retry_attempt,
)
from tests.integration.journal import Journal
from tests.waiting import wait_for

if TYPE_CHECKING:
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka


@pytest.mark.parametrize("concurrency", [1, 4])
def test_without_error_handling_a_failure_stops_the_consumer_and_nothing_past_it_is_committed(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings, concurrency: int
) -> None:
    topic, settings, journal = kafetrain_topic(prefix="orders"), make_settings(concurrency=concurrency), Journal()
    written = cluster.write_all(topic, [(0, b"key-%d" % (at % 7), b"m%d" % at) for at in range(40)])

    def handle(record: Record) -> None:
        if record.value == b"m20":
            raise ValueError("not m20")

    with pytest.raises(ValueError, match="not m20"):
        KafkaConsumer(settings).consume(topic, journal.recording(handle))
    # With several threads a key may be behind: its records are open, and nothing past them is committed either.
    first_open = min({record.offset for record in written} - set(journal.offsets("ended")))
    assert cluster.committed(settings.group_id, topic)[0][0] == first_open <= 20
    assert not cluster.exists(f"retry-{topic}"), "without a tracker nothing is made beside the source topic"

    journal.interrupted()
    consumer = KafkaConsumer(settings)
    consumer.start(topic, journal.recording(lambda record: None))
    wait_for("all have succeeded", lambda: len(set(journal.offsets("ended"))) == 40, check=consumer.check)
    consumer.stop()
    assert cluster.committed(settings.group_id, topic)[0][0] == 40
    journal.no_loss(written)
    journal.key_order(written)


def test_the_first_middleware_is_the_outermost_and_each_sees_the_outcome_of_what_it_stands_around(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings = kafetrain_topic(prefix="orders"), make_settings(max_retries=1)
    seen: list[tuple[str, int, object]] = []
    written = cluster.write(topic, b"a", b"fails once", b"waits") + cluster.write(topic, b"b", b"good", b"dies")

    def watching(name: str) -> Middleware:
        def watch(record: Record, call_next: Handler) -> object:
            result: object = None
            try:
                result = call_next(record)
            except Exception as error:
                result = type(error)
                raise
            finally:
                seen.append((name, record.offset, result))
            return result

        return watch

    def handle(record: Record) -> None:
        if record.value == b"fails once" and get_retry_attempt(record) == 0:
            raise ValueError("once")
        if record.value == b"dies":
            raise NotRetriableError("never")

    retried = threading.Event()
    with ErrorTracker(settings) as tracker:
        tracker.start_tracking(topic)
        consumer = KafkaConsumer(settings)
        consumer.with_middlewares(LoggingMiddleware(), watching("outer"), ErrorHandlingMiddleware(tracker))
        consumer.with_middlewares(watching("inner"))
        consumer.start(topic, handle)
        wait_for("all were seen", lambda: len([s for s in seen if s[0] == "outer"]) == 4, check=consumer.check)
        with RetryManager(tracker, lambda record: retried.set() if record.offset == 1 else None) as manager:
            manager.start_retry_consumer(topic)
            wait_for("the one that waited has run", retried.is_set, check=manager.check)
            consumer.stop()

    a, b = ([event for event in seen if event[1] in offsets] for offsets in ((0, 1), (2, 3)))
    assert a == [("inner", 0, ValueError), ("outer", 0, Outcome.REDIRECTED), ("outer", 1, Outcome.SIDELINED)]
    assert b == [
        ("inner", 2, None),
        ("outer", 2, Outcome.SUCCEEDED),
        ("inner", 3, NotRetriableError),
        ("outer", 3, Outcome.DEAD_LETTERED),
    ]
    assert cluster.committed(settings.group_id, topic)[0][0] == len(written)


def test_of_a_handler_that_returns_a_future_a_middleware_sees_a_future_of_the_outcome(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings = kafetrain_topic(prefix="orders"), make_settings(backoff={"policy": "constant", "initial": "1h"})
    cluster.write_all(topic, [(0, b"a", b"good"), (0, b"b", b"bad")])
    outcomes: dict[int, Future[Outcome]] = {}

    def outer(record: Record, call_next: Handler) -> object:
        result = call_next(record)
        assert isinstance(result, Future)
        outcomes[record.offset] = result
        return result

    def handle(record: Record) -> Future[None]:
        future: Future[None] = Future()
        if record.value == b"good":
            future.set_result(None)
        else:
            future.set_exception(ValueError("no"))
        return future

    with KafkaConsumer.resilient(settings, topic, handle, middlewares=[outer]) as consumer:
        wait_for("both were seen", lambda: len(outcomes) == 2, check=consumer.check)
        assert [outcomes[offset].result(10) for offset in (0, 1)] == [Outcome.SUCCEEDED, Outcome.REDIRECTED]


def test_middlewares_of_a_resilient_consumer_stand_around_its_retries_too(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings, attempts = kafetrain_topic(prefix="orders"), make_settings(), []
    cluster.write(topic, b"a", b"m1")

    def watch(record: Record, call_next: Handler) -> object:
        attempts.append(get_retry_attempt(record))
        return call_next(record)

    def handle(record: Record) -> None:
        if get_retry_attempt(record) < 2:
            raise ValueError("no")

    with KafkaConsumer.resilient(settings, topic, handle, middlewares=[watch]) as consumer:
        wait_for("it has succeeded", lambda: attempts == [0, 1, 2], check=consumer.check)
    cluster.check_at_rest(settings, topic)


def test_what_cannot_work_is_refused_before_anything_is_consumed(make_settings: MakeSettings) -> None:
    settings = make_settings()
    tracker = ErrorTracker(settings)
    error_handling = ErrorHandlingMiddleware(tracker)
    consumer = KafkaConsumer(settings)
    with pytest.raises(ConfigurationError, match="must be callable"):
        consumer.with_middlewares("no middleware")  # type: ignore[arg-type]  # the mistake that is tested
    with pytest.raises(ConfigurationError, match="two ErrorHandlingMiddlewares"):
        consumer.with_middlewares(error_handling, ErrorHandlingMiddleware(tracker))
    with pytest.raises(ConfigurationError, match="needs an ErrorTracker"):
        ErrorHandlingMiddleware(settings)  # type: ignore[arg-type]  # the mistake that is tested
    with pytest.raises(ConfigurationError, match="its own ErrorHandlingMiddleware"):
        KafkaConsumer.resilient(settings, "orders", print, middlewares=[error_handling])
    with pytest.raises(NotTrackedError, match="start_tracking"):
        consumer.with_middlewares(error_handling).consume("orders", print)
    for topics in ([], "", ["orders", ""], [b"orders"]):
        with pytest.raises(ConfigurationError, match="topics must be"):
            KafkaConsumer(settings).consume(topics, print)  # type: ignore[arg-type]  # the mistake that is tested
