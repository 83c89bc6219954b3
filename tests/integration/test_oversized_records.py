"""A record that no longer fits into the retry topic: one clear error, nothing lost, and work resumes afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import pytest
from kafka.errors import MessageSizeTooLargeError

from kafetrain import KafkaConsumer, NotRetriableError, Record, get_retry_attempt
from kafetrain.errors import RecordTooLargeError
from tests.integration.journal import Journal
from tests.waiting import wait_for

if TYPE_CHECKING:
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka

SIZE = 400_000
T = TypeVar("T")


def unless_too_large(call: Callable[[], T]) -> Callable[[], T | None]:
    """None while a broker has not heard of a topic's new limit yet."""

    def attempt() -> T | None:
        try:
            return call()
        except (MessageSizeTooLargeError, RecordTooLargeError):
            return None

    return attempt


@pytest.mark.parametrize("goes_to", ["retry", "dlq"])
def test_a_record_that_outgrew_the_retry_topic_stops_there_and_resumes_once_it_fits(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings, log: list[str], goes_to: str
) -> None:
    topic = kafetrain_topic(configs={"max.message.bytes": "100000"}, prefix="orders")
    settings, journal = make_settings(), Journal()

    def handle(record: Record) -> None:
        if record.key == b"big" and goes_to == "dlq":
            raise NotRetriableError("never")
        if record.key == b"big" and get_retry_attempt(record) == 0:
            raise ValueError("no")

    def run(done: Callable[[], object]) -> None:
        with KafkaConsumer.resilient(settings, topic, journal.recording(handle)) as consumer:
            wait_for("it is done", done, check=consumer.check)

    written = cluster.write(topic, b"small", b"m1")
    run(lambda: journal.offsets("ended") == [0])
    cluster.configure(topic, {"max.message.bytes": "1000000"})
    big = os.urandom(SIZE)  # does not compress
    written += wait_for("the topic takes it", unless_too_large(lambda: cluster.write(topic, b"big", big)))
    written += cluster.write(topic, b"small", b"m2")

    with pytest.raises(RecordTooLargeError) as stopped:
        run(lambda: False)
    error = stopped.value
    assert (error.source, error.topic) == (f"{topic}[0]@1", f"{goes_to}-{topic}")
    assert SIZE < error.size_bytes < SIZE + 2_000
    assert error.limit_bytes == 165_536
    for said in (error.source, error.topic, str(error.size_bytes), "165536", "max.message.bytes"):
        assert said in str(error)
    assert cluster.committed(settings.group_id, topic)[0][0] == 1, "nothing past it"
    assert any(f"{goes_to}-{topic}: max.message.bytes is 165536 and should be" in line for line in log)

    cluster.configure(f"{goes_to}-{topic}", {"max.message.bytes": "1065536"})

    def run_once_it_fits(done: Callable[[], object]) -> None:
        def attempt() -> bool:
            journal.interrupted()
            run(done)
            return True

        wait_for(f"{goes_to}-{topic} takes it", unless_too_large(attempt))

    if goes_to == "retry":
        run_once_it_fits(lambda: {0, 1, 2} == set(journal.offsets("ended")))
        journal.no_loss(written)
        assert journal.attempts(1)[-1] == 1
        cluster.check_at_rest(settings, topic)
    else:
        run_once_it_fits(lambda: cluster.read(f"dlq-{topic}"))
        assert [letter.value for letter in cluster.read(f"dlq-{topic}")] == [big]


def test_a_record_that_arrived_compressed_leaves_again_though_it_is_larger_than_the_limit(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings, journal = kafetrain_topic(prefix="orders"), make_settings(), Journal()
    value = b"the same again " * 200_000  # 3 MB; a topic takes 1 MB by default, compressed
    cluster.write_compressed(topic, b"a", value)

    def handle(record: Record) -> None:
        assert record.value == value
        if get_retry_attempt(record) == 0:
            raise ValueError("no")

    with KafkaConsumer.resilient(settings, topic, journal.recording(handle)) as consumer:
        wait_for("it has succeeded", lambda: journal.offsets("ended") == [0], check=consumer.check)
    cluster.check_at_rest(settings, topic)
