"""Consumer groups that share a source topic, and with it the auxiliary topics, never touch each other's retries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kafetrain import KafkaConsumer, Record
from tests.integration.journal import Journal
from tests.waiting import wait_for

if TYPE_CHECKING:
    from kafetrain import Handler
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka


def failing_for(value: bytes, times: int) -> Handler:
    failures = 0

    def handle(record: Record) -> None:
        nonlocal failures
        if record.value == value and failures < times:
            failures += 1
            raise ValueError(f"failure {failures}")

    return handle


def test_each_group_retries_its_own_failures_and_no_other(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic = kafetrain_topic(2, prefix="orders")
    # Ids put the group first, and a slash in a group's name must not move their parts.
    one, two = make_settings(), make_settings(group_id=f"team/100%/{topic}")
    written = cluster.write(topic, b"a", b"m1", b"m2", b"m3") + cluster.write(topic, b"b", b"m4", partition=1)
    first, second = Journal(), Journal()
    with (
        KafkaConsumer.resilient(one, topic, first.recording(failing_for(b"m1", 3))) as consumer_one,
        KafkaConsumer.resilient(two, topic, second.recording(failing_for(b"m2", 2))) as consumer_two,
    ):
        wait_for("one is done", lambda: len(first.places("ended")) == 4, check=consumer_one.check)
        wait_for("two is done", lambda: len(second.places("ended")) == 4, check=consumer_two.check)

    assert [first.attempts(offset) for offset in range(3)] == [[0, 1, 2, 3], [0], [0]]
    assert [second.attempts(offset) for offset in range(3)] == [[0], [0, 1, 2], [0]]
    for settings, journal in ((one, first), (two, second)):
        journal.no_loss(written)
        journal.key_order(written)
        journal.once()
        cluster.check_at_rest(settings, topic)


def test_a_key_that_is_dead_in_one_group_runs_in_the_other(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, one, two = kafetrain_topic(prefix="orders"), make_settings(max_retries=0), make_settings(max_retries=0)
    cluster.write(topic, b"a", b"m1", b"m2")
    first, second = Journal(), Journal()
    with KafkaConsumer.resilient(one, topic, first.recording(failing_for(b"m1", 1))) as consumer_one:
        wait_for("m2 is parked", lambda: len(cluster.read(f"dlq-{topic}")) == 2, check=consumer_one.check)
        with KafkaConsumer.resilient(two, topic, second.recording(failing_for(b"", 1))) as consumer_two:
            wait_for("the other has both", lambda: second.offsets("ended") == [0, 1], check=consumer_two.check)
            assert consumer_two.tracker.locks(topic) == []
        (lock,) = consumer_one.tracker.locks(topic)
    assert lock.state == "dead"
    assert first.offsets("started") == [0]
    cluster.check_at_rest(two, topic)


def test_with_the_group_in_their_names_each_group_has_topics_of_its_own(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, journal = kafetrain_topic(prefix="orders"), Journal()
    settings = make_settings(topic_format="{group}.{prefix}.{topic}")
    cluster.write(topic, b"a", b"m1")
    with KafkaConsumer.resilient(settings, topic, journal.recording(failing_for(b"m1", 1))) as consumer:
        wait_for("it has succeeded", lambda: journal.offsets("ended") == [0], check=consumer.check)
    assert len(cluster.read(f"{settings.group_id}.retry.{topic}")) == 1
    assert not cluster.exists(f"retry-{topic}")
    cluster.check_at_rest(settings, topic)
