"""Ordered retries from end to end: a key keeps its order, whatever fails of it and however often."""

from __future__ import annotations

import random
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from kafetrain import KafkaConsumer, Record, RetriableError, get_retry_attempt, get_retry_reason, is_retry_message
from tests.integration.journal import Journal
from tests.waiting import wait_for

if TYPE_CHECKING:
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka


class Failing:
    """A handler that fails for a record as often as its value says: `b"m1 fails 2"`."""

    def __init__(self) -> None:
        self.failures: Counter[tuple[int, int]] = Counter()

    def __call__(self, record: Record) -> None:
        _, _, times = record.value.partition(b" fails ")
        place = (record.partition, record.offset)
        if self.failures[place] < int(times or 0):
            self.failures[place] += 1
            raise ValueError(f"failure {self.failures[place]} of {times.decode()}")


def test_records_of_a_key_are_handled_to_the_end_in_their_order_however_often_each_fails(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings, journal = kafetrain_topic(prefix="orders"), make_settings(), Journal()
    written = cluster.write(topic, b"a", b"m1 fails 2", b"m2 fails 1", b"m3")
    reasons: list[str | None] = []

    def handle(record: Record) -> None:
        reasons.append(get_retry_reason(record))
        failing(record)

    failing = Failing()
    with KafkaConsumer.resilient(settings, topic, journal.recording(handle)) as consumer:
        wait_for("m3 has succeeded", lambda: journal.offsets("ended") == [0, 1, 2], check=consumer.check)

    assert journal.attempts(0) == [0, 1, 2]
    assert journal.attempts(1) == [0, 1]
    assert journal.attempts(2) == [0]
    assert reasons == [None, "failure 1 of 2", "failure 2 of 2", None, "failure 1 of 1", None]
    journal.no_loss(written)
    journal.key_order(written)
    journal.honest_attempts()
    cluster.check_at_rest(settings, topic)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_many_keys_with_many_failures_keep_their_order_and_leave_nothing_behind(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings, concurrency: int
) -> None:
    topic, settings, journal = kafetrain_topic(3, prefix="orders"), make_settings(concurrency=concurrency), Journal()
    dice = random.Random(7)
    values = [b"m fails %d" % dice.choice([1, 2, 3, 4]) if dice.random() < 0.3 else b"m" for _ in range(400)]
    written = cluster.write_all(topic, [(at % 40 % 3, b"key-%d" % (at % 40), v) for at, v in enumerate(values)])

    with KafkaConsumer.resilient(settings, topic, journal.recording(Failing())) as consumer:
        wait_for("all have succeeded", lambda: len(journal.places("ended")) == 400, check=consumer.check)
        wait_for("all is free", lambda: not consumer.tracker.locks(topic))

    journal.no_loss(written)
    journal.key_order(written)
    journal.honest_attempts()
    journal.once()
    cluster.check_at_rest(settings, topic)


def test_a_key_that_waits_an_hour_delays_no_other_key_of_its_partition(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    """P3, on both sides: others go on in the source topic, and others that fail are retried when they are due."""
    topic, settings, journal = kafetrain_topic(prefix="orders"), make_settings(), Journal()

    def handle(record: Record) -> None:
        if record.key == b"slow":
            raise RetriableError("later", delay=timedelta(hours=1))
        failing(record)

    failing = Failing()
    slow = cluster.write(topic, b"slow", b"s1", b"s2")
    others = cluster.write_all(topic, [(0, b"key-%d" % (at % 5), b"m fails %d" % (at % 3)) for at in range(30)])
    with KafkaConsumer.resilient(settings, topic, journal.recording(handle)) as consumer:
        wait_for("the others succeed", lambda: len(journal.places("ended")) == 30, check=consumer.check)
        late = cluster.write(topic, b"key-0", b"m fails 1")
        wait_for("a later one too", lambda: late[0].place in journal.places("ended"), check=consumer.check)
        wait_for("one key waits", lambda: len(consumer.tracker.locks(topic)) == 1)
        (lock,) = consumer.tracker.locks(topic)

    assert (lock.key, lock.state, lock.pending, lock.attempt) == (b"slow", "pending", 2, 1)
    assert journal.offsets("started", b"slow") == [slow[0].offset], "it has run once, and nothing behind it"
    journal.no_loss([*others, *late])
    journal.key_order([*others, *late])
    assert cluster.committed(settings.group_id, topic)[0][0] == 33, "P4: the source is committed past what waits"


def test_source_partitions_that_share_a_retry_partition_keep_their_chains_apart(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    """With an explicit `retry_topic_partitions`; the same key in two source partitions is two chains."""
    topic, journal = kafetrain_topic(5, prefix="orders"), Journal()
    settings = make_settings(retry_topic_partitions=2, max_retries=2, concurrency=3)
    written = [
        record
        for partition in range(5)
        for record in cluster.write(topic, b"a", b"m fails %d" % partition, b"m fails 1", b"m", partition=partition)
    ]
    with KafkaConsumer.resilient(settings, topic, journal.recording(Failing())) as consumer:
        wait_for("all but two have succeeded", lambda: len(journal.places("ended")) == 9, check=consumer.check)
        wait_for("all are dead or parked", lambda: len(cluster.read(f"dlq-{topic}")) == 6, check=consumer.check)
        wait_for("two keys are dead", lambda: len(consumer.tracker.locks(topic)) == 2, check=consumer.check)

    dead = cluster.dead_places(f"dlq-{topic}")
    assert {place: state for place, state in dead.items() if state == "exhausted"} == {
        (3, 0): "exhausted",
        (4, 0): "exhausted",
    }
    assert {(r.partition, dict(r.headers)["x-dlq-partition"]) for r in cluster.read(f"dlq-{topic}")} == {
        (1, b"3"),
        (0, b"4"),
    }
    journal.no_loss(written, dead)
    journal.key_order(written, dead)
    journal.honest_attempts()


def test_one_consumer_handles_several_topics_each_with_retries_of_its_own(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topics, settings = [kafetrain_topic(prefix="orders"), kafetrain_topic(2, prefix="invoices")], make_settings()
    journals = {topic: Journal() for topic in topics}
    failing = {topic: Failing() for topic in topics}
    written = {topic: cluster.write(topic, b"a", b"m1 fails 1", b"m2", b"m3 fails 2") for topic in topics}

    def handle(record: Record) -> object:
        return journals[record.topic].recording(failing[record.topic])(record)

    with KafkaConsumer.resilient(settings, topics, handle) as consumer:
        for topic, journal in journals.items():
            wait_for(f"{topic} is done", lambda j=journal: len(j.offsets("ended")) == 3, check=consumer.check)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
    for topic, journal in journals.items():
        journal.no_loss(written[topic])
        journal.key_order(written[topic])
        journal.honest_attempts()
        cluster.check_at_rest(settings, topic)


def test_a_retried_record_looks_like_its_source_record(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings, seen = kafetrain_topic(2, prefix="orders"), make_settings(max_retries=3), []
    headers = [("tag", b"1"), ("other", b""), ("tag", b"2"), ("tag", b"1")]
    cluster.write(topic, b"first", b"of this partition", partition=1)
    cluster.write(topic, b"\xff\x00key", b"value \xfe", partition=1, headers=headers)

    def handle(record: Record) -> None:
        if record.offset == 1:
            seen.append(record)
            if len(seen) < 3:
                raise ValueError("no")

    with KafkaConsumer.resilient(settings, topic, handle) as consumer:
        wait_for("it has run three times", lambda: len(seen) == 3, check=consumer.check)

    first, *retried = seen
    assert not is_retry_message(first)
    for attempt, record in enumerate(retried, 1):
        assert is_retry_message(record)
        assert (record.topic, record.partition, record.offset) == (topic, 1, 1)
        assert (record.key, record.value, record.timestamp) == (b"\xff\x00key", b"value \xfe", first.timestamp)
        assert list(record.headers[:4]) == headers
        assert get_retry_attempt(record) == attempt
        ours = {name: value or b"" for name, value in record.headers[4:]}
        assert ours["x-retry-id"] == f"{settings.group_id}/{topic}/1/1".encode()
        assert ours["x-retry-max"] == b"3"
        assert (ours["x-retry-reason"], ours["x-retry-error-type"]) == (b"no", b"ValueError")
        assert int(ours["x-retry-due"]) > int(ours["x-retry-first-failure"]) >= first.timestamp
