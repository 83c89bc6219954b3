"""What a start refuses, before any record is consumed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from kafetrain import ConfigurationError, ErrorTracker, KafkaConsumer, Record
from tests.waiting import wait_for

if TYPE_CHECKING:
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka


def never(record: Record) -> None:
    raise AssertionError("no record may be handled")


def refusal(settings: Any, topic: str) -> str:
    """The text of the one `ConfigurationError` that both ways of starting give; nothing is left running."""
    texts = []
    starts: list[Callable[[], None]] = [
        lambda: KafkaConsumer.resilient(settings, topic, never).run(),
        lambda: ErrorTracker(settings).start_tracking(topic),
    ]
    for start in starts:
        with pytest.raises(ConfigurationError) as refused:
            start()
        texts.append(str(refused.value))
    assert not any(thread.name.startswith("kafetrain-") for thread in threading.enumerate())
    assert texts[0] == texts[1]
    return texts[0]


def test_a_source_topic_that_is_missing_is_an_error_and_is_not_created(
    cluster: Cluster, make_settings: MakeSettings
) -> None:
    text = refusal(make_settings(), "orders-that-nobody-made")
    assert "orders-that-nobody-made does not exist" in text
    assert not cluster.exists("orders-that-nobody-made")
    assert not cluster.exists("retry-orders-that-nobody-made")


def test_names_that_kafka_would_refuse_are_an_error_that_says_where_they_come_from(
    cluster: Cluster, make_settings: MakeSettings
) -> None:
    long = "x" * 245
    cluster.broker.create_topic(long)
    text = refusal(make_settings(), long)
    assert "has 251 characters, but Kafka allows 249" in text
    assert "retry_topic_prefix" in text
    cluster.broker.delete_topic(long)
    text = refusal(make_settings(group_id="team/a", topic_format="{group}.{prefix}.{topic}"), "orders")
    assert "has '/'" in text
    assert "group_id 'team/a'" in text


def test_topics_that_may_not_be_created_are_an_error_with_the_commands_that_create_them(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic = kafetrain_topic(3, prefix="orders")
    settings = make_settings(auto_create_topics=False)
    text = refusal(settings, topic)
    for name in (f"retry-{topic}", f"redirect-{topic}", f"dlq-{topic}"):
        assert f"--create --if-not-exists --topic {name} --partitions 3" in text
        assert not cluster.exists(name)

    with ErrorTracker(make_settings()) as tracker:
        tracker.start_tracking(topic)
    seen: list[int] = []
    cluster.write(topic, b"a", b"m1")
    with KafkaConsumer.resilient(settings, topic, lambda record: seen.append(record.offset)) as consumer:
        wait_for("it works once they are there", lambda: seen == [0], check=consumer.check)


def test_a_topic_that_would_lose_locks_is_an_error_that_names_its_setting(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings = kafetrain_topic(prefix="orders"), make_settings()
    with ErrorTracker(settings) as tracker:
        tracker.start_tracking(topic)
    cluster.configure(f"redirect-{topic}", {"retention.ms": "604800000"})
    text = refusal(settings, topic)
    assert f"redirect-{topic}: retention.ms is 604800000 and must be -1" in text
    assert "kafka-configs.sh" in text


def test_of_several_topics_one_that_cannot_be_consumed_stops_the_start(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic = kafetrain_topic(prefix="orders")
    cluster.write(topic, b"a", b"m1")
    consumer = KafkaConsumer.resilient(make_settings(), [topic, "orders-that-nobody-made"], never)
    with pytest.raises(ConfigurationError, match="does not exist"), consumer:
        pass


@pytest.mark.parametrize(("reset", "expected"), [("earliest", [0, 1, 2]), ("latest", [2])])
def test_a_group_without_offsets_begins_where_it_is_told_to(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings, reset: str, expected: list[int]
) -> None:
    topic, settings, seen = kafetrain_topic(prefix="orders"), make_settings(auto_offset_reset=reset), list[int]()
    cluster.write(topic, b"a", b"m1", b"m2")
    with KafkaConsumer.resilient(settings, topic, lambda record: seen.append(record.offset)) as consumer:
        (at, metadata), *_ = wait_for("it has begun", lambda: [*cluster.committed(settings.group_id, topic).values()])
        assert (at in (0, 2), metadata.startswith("kafetrain:")) == (True, True)
        cluster.write(topic, b"a", b"m3")
        wait_for("the new one is handled", lambda: 2 in seen, check=consumer.check)
    assert seen == expected
