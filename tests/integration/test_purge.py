"""Registration and purge: disk and start-up follow the live locks, and no other group ever loses one."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from kafetrain import KafkaConsumer, Record, RetriableError, get_retry_attempt
from tests.integration.journal import Journal
from tests.waiting import wait_for

if TYPE_CHECKING:
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Purge within a test's patience, and for few records."""
    monkeypatch.setattr("kafetrain.retry.loop.PURGE_EVERY_S", 0.3)
    monkeypatch.setattr("kafetrain.retry.purge.WORTH_A_REGISTRATION", 10)
    monkeypatch.setattr("kafetrain.tracker.reader.FORGET_EVERY_S", 0.3)


def handle(record: Record) -> None:
    if record.value == b"later":
        raise RetriableError("later", delay=timedelta(hours=1))
    if get_retry_attempt(record) == 0:
        raise ValueError("the first time")


def test_a_group_registers_before_its_first_lock_and_not_without_one(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings, journal = kafetrain_topic(2, prefix="orders"), make_settings(), Journal()
    cluster.write(topic, b"a", b"m1")
    cluster.write(topic, b"b", b"m2", partition=1)

    def fail_in_partition_1(record: Record) -> None:
        if record.partition == 1:
            handle(record)

    for _ in range(2):  # a second start writes no second one
        with KafkaConsumer.resilient(settings, topic, journal.recording(fail_in_partition_1)) as consumer:
            wait_for("both have succeeded", lambda: len(journal.places("ended")) >= 2, check=consumer.check)
    registration, *rest = cluster.read(f"redirect-{topic}")
    assert registration.partition == 1
    assert registration.key == f"group/{settings.group_id}".encode()
    fields = json.loads(registration.value)
    assert (fields["v"], fields["topic"]) == (1, topic)
    assert fields["topic_id"]
    assert fields["since"] > 0
    assert [record.partition for record in rest] == [1, 1], "the entry and the tombstone"


@pytest.mark.usefixtures("often")
def test_what_no_lock_needs_any_more_is_deleted_and_a_restart_finds_what_does(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings, journal = kafetrain_topic(prefix="orders"), make_settings(), Journal()
    redirect, retry = f"redirect-{topic}", f"retry-{topic}"
    written = cluster.write_all(topic, [(0, b"key-%d" % at, b"m") for at in range(30)])
    with KafkaConsumer.resilient(settings, topic, journal.recording(handle)) as consumer:
        wait_for("all have succeeded", lambda: len(journal.offsets("ended")) == 30, check=consumer.check)
        # Its handler has ended before the end of its lock is written, and the next lock must come behind all of those.
        wait_for("no key is locked", lambda: not list(consumer.tracker.locks(topic)), check=consumer.check)
        waits = cluster.write(topic, b"waits", b"later", b"behind")
        wait_for("a key waits", lambda: len(cluster.read(retry)) == 2, check=consumer.check)
        wait_for("the retry topic is purged", lambda: cluster.begin_offsets(retry) == {0: 30}, check=consumer.check)
        wait_for("so is the redirect topic", lambda: cluster.begin_offsets(redirect)[0] >= 50, check=consumer.check)

    left = cluster.read(redirect)
    assert len(cluster.locks(redirect)) == 2
    assert f"group/{settings.group_id}".encode() in [record.key for record in left], "registered again before it goes"

    journal.interrupted()
    with KafkaConsumer.resilient(settings, topic, journal.recording(handle)) as consumer:
        more = cluster.write_all(topic, [(0, b"key-1", b"m"), (0, b"waits", b"behind")])
        wait_for("a new one succeeds", lambda: more[0].offset in journal.offsets("ended"), check=consumer.check)
        (lock,) = wait_for("all three wait", lambda: [k for k in consumer.tracker.locks(topic) if k.pending == 3])
    assert (lock.key, lock.attempt, lock.head) == (b"waits", 1, f"{settings.group_id}/{topic}/0/{waits[0].offset}")
    journal.no_loss([*written, more[0]])
    journal.key_order([*written, more[0]])
    journal.once()


@pytest.mark.usefixtures("often")
def test_a_restart_after_everything_was_purged_runs_nothing_again(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings, journal = kafetrain_topic(prefix="orders"), make_settings(), Journal()
    written = cluster.write_all(topic, [(0, b"key-%d" % at, b"m") for at in range(20)])

    def run(until: int) -> None:
        with KafkaConsumer.resilient(settings, topic, journal.recording(handle)) as consumer:
            wait_for("all have succeeded", lambda: len(journal.offsets("ended")) == until, check=consumer.check)
            wait_for("all is purged", lambda: cluster.begin_offsets(f"retry-{topic}")[0] == until, check=consumer.check)
            wait_for("few are left", lambda: len(cluster.read(f"redirect-{topic}")) <= 11, check=consumer.check)

    run(until=20)
    written += cluster.write_all(topic, [(0, b"key-%d" % at, b"m") for at in range(20)])
    run(until=40)
    journal.no_loss(written)
    journal.key_order(written)
    journal.once()
    cluster.check_at_rest(settings, topic)


@pytest.mark.usefixtures("often")
def test_nothing_is_purged_where_another_group_is_registered(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings, log: list[str]
) -> None:
    topic, journal = kafetrain_topic(prefix="orders"), Journal()
    one, other = make_settings(), make_settings()
    cluster.write_all(topic, [(0, b"key-%d" % at, b"m") for at in range(20)])
    with KafkaConsumer.resilient(other, topic, journal.recording(handle)) as consumer:
        wait_for("the other group is done", lambda: len(journal.offsets("ended")) == 20, check=consumer.check)
        before = cluster.begin_offsets(f"retry-{topic}")
    # It may have purged while it was alone.
    journal = Journal()
    with KafkaConsumer.resilient(one, topic, journal.recording(handle)) as consumer:
        wait_for("it is done", lambda: len(journal.offsets("ended")) == 20, check=consumer.check)
        shared = f"redirect-{topic} is shared with group {other.group_id}, so nothing in it is purged"
        wait_for("it says so", lambda: any(shared in line for line in log), check=consumer.check)
        cluster.write(topic, b"more", b"m")
        wait_for("it is done again", lambda: len(journal.offsets("ended")) == 21, check=consumer.check)
        retry = f"retry-{topic}"
        wait_for("it is committed", lambda: cluster.committed(one.retry_group_id, retry).get(0, (0, ""))[0] >= 41)

    assert cluster.begin_offsets(f"retry-{topic}")[0] <= max(before[0], 20)
    assert sum(shared in line for line in log) == 1
    cluster.check_at_rest(one, topic)
