"""Pull style: a loop over `stream` sees the records that may run now, retries among them, and decides each itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from kafetrain import (
    ConfigurationError,
    ErrorHandlingMiddleware,
    ErrorTracker,
    KafkaConsumer,
    NotTrackedError,
    Pause,
    Settings,
    get_retry_attempt,
    is_retry_message,
)
from tests.integration.journal import Journal
from tests.waiting import wait_for

if TYPE_CHECKING:
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka


@contextmanager
def resilient_consumer(settings: Settings, topic: str) -> Iterator[tuple[KafkaConsumer, ErrorTracker]]:
    with ErrorTracker(settings) as tracker:
        tracker.start_tracking(topic)
        yield KafkaConsumer(settings).with_middlewares(ErrorHandlingMiddleware(tracker)), tracker


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_stream_brings_each_record_once_it_may_run_and_retries_when_they_are_due(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings, concurrency: int
) -> None:
    topic, settings, journal = kafetrain_topic(2, prefix="orders"), make_settings(concurrency=concurrency), Journal()
    written = cluster.write(topic, b"a", b"m1 fails 2", b"m2", b"m3 fails 1")
    written += cluster.write(topic, b"b", b"m4", b"m5 fails 1", partition=1)
    with resilient_consumer(settings, topic) as (consumer, _):
        for record in consumer.stream(topic):
            journal.add("started", record)
            _, _, failures = record.value.partition(b" fails ")
            if get_retry_attempt(record) < int(failures or 0):
                consumer.fail(ValueError("no"))
                journal.add("failed", record)
            else:
                journal.add("ended", record)
            assert is_retry_message(record) == (get_retry_attempt(record) > 0 or record.value in (b"m2", b"m3 fails 1"))
            if len(journal.places("ended")) == len(written):
                consumer.stop()

    assert (journal.attempts(0), journal.attempts(1), journal.attempts(2)) == ([0, 1, 2], [0], [0, 1])
    journal.no_loss(written)
    journal.key_order(written)
    journal.once()
    cluster.check_at_rest(settings, topic)


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("leave_by", ["break", "an exception"])
def test_leaving_the_loop_leaves_its_record_to_the_next_consumer(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings, leave_by: str, concurrency: int
) -> None:
    """Also those behind it that were handed over and not looked at."""
    topic, settings, seen = kafetrain_topic(prefix="orders"), make_settings(concurrency=concurrency), []
    cluster.write_all(topic, [(0, b"key-%d" % at, b"m%d" % at) for at in range(10)])
    with resilient_consumer(settings, topic) as (consumer, tracker):
        # Closed by hand: what a generator raises while it is collected nobody would see.
        with suppress(KeyError), closing(consumer.stream(topic)) as stream:
            for record in stream:
                seen.append(record.offset)
                if len(seen) == 3:
                    if leave_by == "break":
                        break
                    raise KeyError("the loop's own")
        assert tracker.locks(topic) == [], "it counts as no failure"
    assert seen == [0, 1, 2]
    assert cluster.committed(settings.group_id, topic)[0][0] == 2

    with resilient_consumer(settings, topic) as (consumer, _):
        for record in consumer.stream(topic):
            assert get_retry_attempt(record) == 0
            seen.append(record.offset)
            if record.offset == 9:
                consumer.stop()
    assert seen == [0, 1, *range(2, 3), *range(2, 10)]
    cluster.check_at_rest(settings, topic)


def test_failing_with_a_pause_brings_the_same_record_again_and_counts_nothing(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings, seen = kafetrain_topic(prefix="orders"), make_settings(), list[tuple[int, int]]()
    cluster.write(topic, b"a", b"m1", b"m2")
    with resilient_consumer(settings, topic) as (consumer, tracker):
        for record in consumer.stream(topic):
            seen.append((record.offset, get_retry_attempt(record)))
            if len(seen) == 1:
                consumer.fail(Pause(retry_in=timedelta(milliseconds=100)))
            if record.offset == 1:
                consumer.stop()
        assert tracker.locks(topic) == []
    assert seen == [(0, 0), (0, 0), (1, 0)]
    cluster.check_at_rest(settings, topic)


def test_leaving_the_loop_at_a_retry_counts_no_attempt(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings = kafetrain_topic(prefix="orders"), make_settings()
    cluster.write(topic, b"a", b"m1", b"m2")
    for expected in (1, 1):
        with resilient_consumer(settings, topic) as (consumer, _):
            for record in consumer.stream(topic):
                assert record.offset == 0
                if get_retry_attempt(record) == expected:
                    break
                consumer.fail(ValueError("no"))
    seen = []
    with resilient_consumer(settings, topic) as (consumer, _):
        for record in consumer.stream(topic):
            seen.append((record.offset, get_retry_attempt(record)))
            if record.offset == 1:
                consumer.stop()
    assert seen == [(0, 1), (1, 0)]
    cluster.check_at_rest(settings, topic)


def passed(seconds: float) -> Callable[[], bool]:
    """A condition that holds so many seconds from now."""
    at = Journal.now() + seconds
    return lambda: Journal.now() > at


def test_a_slow_loop_keeps_its_partition(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    options = {"session_timeout_ms": 6_000, "max_poll_interval_ms": 2_000, "delivery_timeout_ms": 1_500}
    topic, settings, seen = kafetrain_topic(prefix="orders"), make_settings(client_options=options), list[int]()
    cluster.write(topic, b"a", b"m1", b"m2")
    with resilient_consumer(settings, topic) as (consumer, _):
        for record in consumer.stream(topic):
            if not seen:
                wait_for("the poll interval is over, and half of the next", passed(3))
            seen.append(record.offset)
            if record.offset == 1:
                consumer.stop()
    assert seen == [0, 1]
    cluster.check_at_rest(settings, topic)


def test_without_error_handling_a_failure_ends_the_stream_with_its_error(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings, seen = kafetrain_topic(prefix="orders"), make_settings(), []
    cluster.write_all(topic, [(0, b"key-%d" % at, b"m") for at in range(5)])
    consumer = KafkaConsumer(settings)

    def loop() -> None:
        for record in consumer.stream(topic):
            seen.append(record.offset)
            if record.offset == 1:
                consumer.fail(ValueError("the second"))

    with pytest.raises(ValueError, match="the second"):
        loop()
    assert seen[:2] == [0, 1]
    assert cluster.committed(settings.group_id, topic)[0][0] == 1


def test_a_stream_waits_for_its_turn_and_refuses_what_makes_no_sense(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings = kafetrain_topic(prefix="orders"), make_settings(shutdown_timeout=timedelta(seconds=5))
    cluster.write(topic, b"a", b"m1")
    consumer = KafkaConsumer(settings)
    with pytest.raises(ConfigurationError, match="no current record"):
        consumer.fail(ValueError("nothing has failed"))
    for _ in consumer.stream(topic):
        with pytest.raises(ConfigurationError, match="streams already"):
            next(iter(consumer.stream(topic)))
        with pytest.raises(ConfigurationError, match="needs an exception"):
            consumer.fail("text")  # type: ignore[arg-type]  # the mistake that is tested
        break
    untracked = KafkaConsumer(settings).with_middlewares(ErrorHandlingMiddleware(ErrorTracker(settings)))
    with pytest.raises(NotTrackedError):
        next(iter(untracked.stream(topic)))
