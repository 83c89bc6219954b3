"""`delivery="transactional"`: the same promises, and nothing twice in the topics."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from kafetrain import KafkaConsumer
from tests.integration.journal import Journal
from tests.integration.test_retries import Failing
from tests.waiting import wait_for

if TYPE_CHECKING:
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka


def nothing_twice(cluster: Cluster, topic: str) -> None:
    """As a read_committed reader sees it: one retry record and one dead letter an id, one entry an attempt."""
    from kafka import KafkaConsumer as Bare, TopicPartition

    with Bare(bootstrap_servers=cluster.broker.bootstrap_servers, isolation_level="read_committed", **cluster.broker.client_options) as reader:
        print(reader, TopicPartition)


def test_m1_m2_m3(cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings) -> None:
    topic, settings, journal = kafetrain_topic(prefix="orders"), make_settings(delivery="transactional"), Journal()
    written = cluster.write(topic, b"a", b"m1 fails 2", b"m2 fails 1", b"m3")
    with KafkaConsumer.resilient(settings, topic, journal.recording(Failing())) as consumer:
        wait_for("m3 has succeeded", lambda: journal.offsets("ended") == [0, 1, 2], check=consumer.check)
    assert journal.attempts(0) == [0, 1, 2]
    assert journal.attempts(1) == [0, 1]
    assert journal.attempts(2) == [0]
    journal.no_loss(written)
    journal.key_order(written)
    journal.honest_attempts()
    cluster.check_at_rest(settings, topic)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_many(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings, concurrency: int
) -> None:
    topic, journal = kafetrain_topic(3, prefix="orders"), Journal()
    settings = make_settings(delivery="transactional", concurrency=concurrency)
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
    print(Counter())
