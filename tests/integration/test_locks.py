"""`tracker.locks`: every key in retry or dead, as an operator wants to see it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from kafetrain import ErrorTracker, KafkaConsumer, Lock, NotRetriableError, NotTrackedError, Record, RetriableError
from tests.waiting import wait_for

if TYPE_CHECKING:
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka


def handle(record: Record) -> None:
    if record.value == b"later":
        raise RetriableError("the dependency is down", delay=timedelta(hours=1))
    if record.value == b"soon":
        raise RetriableError(KeyError("x" * 5000), delay=timedelta(minutes=1))
    if record.value == b"never":
        raise NotRetriableError("broken")


def test_a_lock_tells_its_key_its_head_and_why_it_waits(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings = kafetrain_topic(2, prefix="orders"), make_settings()
    cluster.write(topic, b"fine", b"m")
    cluster.write(topic, b"a", b"later", b"behind", b"behind")
    cluster.write(topic, b"b", b"soon")
    cluster.write(topic, b"c", b"never", partition=1)
    cluster.write(topic, None, b"soon", partition=1)
    before = datetime.now(timezone.utc)

    with KafkaConsumer.resilient(settings, topic, handle) as consumer:
        locks = wait_for("all wait", lambda: complete(consumer.tracker.locks(topic)), check=consumer.check)
        after = datetime.now(timezone.utc)
    b, a, c, unkeyed = locks

    assert (a.topic, a.partition, a.key, a.state) == (topic, 0, b"a", "pending")
    assert a.head == f"{settings.group_id}/{topic}/0/1"
    assert (a.pending, a.attempt) == (3, 1)
    assert before + timedelta(hours=1) - timedelta(seconds=1) <= a.due <= after + timedelta(hours=1)
    assert a.first_failure is not None
    assert before - timedelta(seconds=1) <= a.first_failure <= after
    assert (a.error_type, a.error) == ("RetriableError", "the dependency is down")

    assert (b.key, b.pending) == (b"b", 1)
    assert b.error is not None
    assert len(b.error.encode()) == 1024, "an error's text is cut"
    assert (c.partition, c.key, c.state, c.pending, c.attempt) == (1, b"c", "dead", 0, 1)
    assert (c.error_type, c.error) == ("NotRetriableError", "broken")
    assert (unkeyed.partition, unkeyed.key, unkeyed.head) == (1, None, f"{settings.group_id}/{topic}/1/1")

    with ErrorTracker(settings) as tracker:
        with pytest.raises(NotTrackedError):
            tracker.locks(topic)
        tracker.start_tracking(topic)
        assert tracker.locks(topic) == locks, "a tracker that only looks sees the same, as soon as it is started"


def complete(locks: list[Lock]) -> list[Lock] | None:
    return locks if sum(lock.pending for lock in locks) == 5 and len(locks) == 4 else None
