"""`kafetrain topics reset` and `forget`: a topic in its second life, and a group that is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from kafka import KafkaConsumer as PlainConsumer

from kafetrain import ConfigurationError, KafkaConsumer, NotRetriableError, Record, RetriableError, Settings
from kafetrain.client.kafka_python import KafkaPythonClient
from kafetrain.client.ports import ClientError, OutgoingRecord
from kafetrain.core.control import Audit
from kafetrain.operations.reset import TopicReset
from tests.integration.journal import Journal, Written
from tests.waiting import wait_for

if TYPE_CHECKING:
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka

AUDIT = Audit("command-1", "ada@here", 1_700_000_000_000)
TIMEOUT_S = 60
DEAD = {(0, 1): "reset", (0, 2): "reset", (0, 3): "reset", (1, 0): "reset", (0, 4): "not-retriable"}
"""The dead-letter topic after a reset."""


def handle(record: Record) -> None:
    if record.value == b"later":
        raise RetriableError("the dependency is down", delay=timedelta(hours=1))
    if record.value == b"never":
        raise NotRetriableError("broken")


def lock_some(cluster: Cluster, settings: Settings, topic: str) -> None:
    """Locks at 0/1, 0/2, 0/3 and 1/0 that wait, and a dead one at 0/4; everything is committed, the group at rest."""
    names = f"redirect-{topic}"
    with KafkaConsumer.resilient(settings, topic, handle) as consumer:
        wait_for(
            "all are locked",
            lambda: sum(id.startswith(f"{settings.group_id}/") for id in cluster.locks(names)) == 5,
            check=consumer.check,
        )


def write_first_life(cluster: Cluster, topic: str) -> None:
    cluster.write(topic, b"fine", b"m")
    cluster.write(topic, b"a", b"later", b"behind", b"behind")
    cluster.write(topic, b"b", b"never")
    cluster.write(topic, b"c", b"later", partition=1)


def recreate(cluster: Cluster, topic: str, partitions: int = 2) -> None:
    cluster.broker.delete_topic(topic)
    wait_for("the topic is gone", lambda: not cluster.exists(topic))
    cluster.broker.create_topic(topic, partitions)


def write_second_life(cluster: Cluster, topic: str) -> list[Written]:
    """Of the same keys, and longer than the first: also records whose offsets had locks."""
    return [
        *cluster.write(topic, b"a", *[b"m"] * 4),
        *cluster.write(topic, b"b", *[b"m"] * 4),
        *cluster.write(topic, b"c", *[b"m"] * 3, partition=1),
    ]


def handle_all(cluster: Cluster, settings: Settings, topic: str, written: list[Written]) -> None:
    """The group starts again and handles every record of the new topic, some of them in a second try."""
    journal, failed = Journal(), set[int]()

    def fail_once(record: Record) -> None:
        if record.offset in (0, 3) and record.offset not in failed:
            failed.add(record.offset)
            raise ValueError("the first time")

    with KafkaConsumer.resilient(settings, topic, journal.recording(fail_once)) as consumer:
        wait_for("all have succeeded", lambda: len(journal.places("ended")) >= len(written), check=consumer.check)
    journal.no_loss(written)
    journal.key_order(written)
    journal.once()
    cluster.check_at_rest(settings, topic)


def is_refused(settings: Settings, topic: str) -> str:
    """Why the group does not start."""
    with pytest.raises(ConfigurationError, match="was deleted and created again") as refused:
        KafkaConsumer.resilient(settings, topic, handle).run()
    return str(refused.value)


def kafetrain(
    *arguments: str, cluster: Cluster, tmp_path: Path, group: str | None = None
) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it, without a terminal."""
    chosen = () if group is None else ("--group", group)
    return subprocess.run(
        [sys.executable, "-m", "kafetrain", *arguments, "--brokers", cluster.broker.bootstrap_servers, *chosen],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])},
        timeout=TIMEOUT_S,
    )


def test_a_group_starts_again_after_a_reset_and_handles_every_record_of_the_new_topic(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings, tmp_path: Path
) -> None:
    topic, settings = kafetrain_topic(2, prefix="orders"), make_settings()
    write_first_life(cluster, topic)
    lock_some(cluster, settings, topic)
    recreate(cluster, topic)
    written = write_second_life(cluster, topic)
    command = f"kafetrain topics reset {topic} --group {settings.group_id} --dead-letter"
    assert command in is_refused(settings, topic)

    run = command.split()[1:4]
    refused = kafetrain(*run, "--dead-letter", cluster=cluster, tmp_path=tmp_path, group=settings.group_id)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "4 pending records will be dead-lettered, and 1 dead record forgotten" in refused.stderr
    assert "pass --yes" in refused.stderr

    options = ("--dead-letter", "--yes", "--by", "ada", "--reason-text", "moved")
    done = kafetrain(*run, *options, cluster=cluster, tmp_path=tmp_path, group=settings.group_id)
    assert done.returncode == 0, done.stderr
    assert "pending records: 4 dead-lettered, 0 dropped; dead ones forgotten: 1" in done.stdout
    assert "reset by ada: pending records dead-lettered 4, dropped 0" in done.stderr
    assert cluster.locks(f"redirect-{topic}") == {}
    assert cluster.dead_places(f"dlq-{topic}") == DEAD
    assert [r.value for r in cluster.read(f"dlq-{topic}") if r.key == b"a"] == [b"later", b"behind", b"behind"]

    before = len(cluster.read(f"redirect-{topic}")), cluster.committed(settings.retry_group_id, f"retry-{topic}")
    again = kafetrain(*run, *options, "--json", cluster=cluster, tmp_path=tmp_path, group=settings.group_id)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["reset"] is False
    assert before == (
        len(cluster.read(f"redirect-{topic}")),
        cluster.committed(settings.retry_group_id, f"retry-{topic}"),
    )

    handle_all(cluster, settings, topic, written)


def test_offsets_that_outlived_the_former_topic_skip_no_record_of_the_new_one(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings = kafetrain_topic(2, prefix="orders"), make_settings()
    write_first_life(cluster, topic)
    lock_some(cluster, settings, topic)
    recreate(cluster, topic)
    written = write_second_life(cluster, topic)
    # As an instance leaves them that commits its last records while the topic is being replaced. Its floor lies below
    # the tombstones of the reset, which would say that records of the new topic have ended.
    cluster.commit(settings.group_id, topic, {0: 1, 1: 0}, "kafetrain:0")
    with TopicReset(KafkaPythonClient(settings), settings, topic) as resetting:
        done = resetting.run(AUDIT, dead_letter=False)
    assert (done.dead_lettered, done.dropped, done.rewound) == (0, 4, (0, 1))
    assert cluster.committed(settings.group_id, topic) == {0: (0, ""), 1: (0, "")}
    handle_all(cluster, settings, topic, written)


class DyingProducer:
    """Writes as often as it may; then it is as if the process had been killed."""

    def __init__(self, producer: Any, writes: int) -> None:
        self._producer, self._left = producer, writes

    def send(self, record: OutgoingRecord) -> Future[int]:
        if self._left == 0:
            dead: Future[int] = Future()
            dead.set_exception(ClientError("killed"))
            return dead
        self._left -= 1
        future: Future[int] = self._producer.send(record)
        return future

    def close(self, timeout: timedelta) -> None:
        self._producer.close(timeout)


class DyingClient(KafkaPythonClient):
    def __init__(self, settings: Settings, writes: int) -> None:
        super().__init__(settings)
        self._writes = writes

    def producer(self) -> Any:
        return DyingProducer(super().producer(), self._writes)


def test_a_reset_that_was_killed_is_finished_by_the_next_one(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings = kafetrain_topic(2, prefix="orders"), make_settings()
    write_first_life(cluster, topic)
    lock_some(cluster, settings, topic)
    recreate(cluster, topic)
    written = write_second_life(cluster, topic)
    # Among the dead letters; among the tombstones; and between the two registrations.
    for writes in (1, 5, 1):
        with (
            TopicReset(DyingClient(settings, writes), settings, topic) as resetting,
            pytest.raises(ClientError, match="run the command again"),
        ):
            resetting.run(AUDIT, dead_letter=True)
        is_refused(settings, topic)
    with TopicReset(KafkaPythonClient(settings), settings, topic) as resetting:
        assert resetting.run(AUDIT, dead_letter=True).former.partitions
        assert resetting.look().partitions == ()
    assert cluster.dead_places(f"dlq-{topic}") == DEAD
    handle_all(cluster, settings, topic, written)


@contextmanager
def member(cluster: Cluster, group: str, topic: str) -> Iterator[None]:
    """Somebody else is in the group."""
    # Left alone, a fresh member may know no partitions for as long as its metadata is good.
    options = {"bootstrap_servers": cluster.broker.bootstrap_servers, "metadata_max_age_ms": 500}
    consumer = PlainConsumer(topic, group_id=group, **options)
    try:
        wait_for("it has joined", lambda: consumer.poll(timeout_ms=1_000) or consumer.assignment())
        yield
    finally:
        consumer.close(autocommit=False)


def test_while_the_group_or_its_retry_group_has_members_nothing_is_changed(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings, tmp_path: Path
) -> None:
    topic, settings = kafetrain_topic(2, prefix="orders"), make_settings()
    write_first_life(cluster, topic)
    lock_some(cluster, settings, topic)
    recreate(cluster, topic)
    before = len(cluster.read(f"redirect-{topic}"))
    for group, read in ((settings.group_id, topic), (settings.retry_group_id, f"retry-{topic}")):
        with member(cluster, group, read):
            commands = (
                ("topics", "reset", topic, "--forget", "--yes", "--group", settings.group_id),
                ("topics", "forget", settings.group_id, "--topic", topic, "--yes"),
            )
            for command in commands:
                refused = kafetrain(*command, cluster=cluster, tmp_path=tmp_path)
                assert refused.returncode == 1
                assert f"{group} has 1 member: stop all instances" in refused.stderr
    assert len(cluster.read(f"redirect-{topic}")) == before


def test_of_two_groups_that_share_the_topics_each_is_reset_by_itself(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, one, two = kafetrain_topic(2, prefix="orders"), make_settings(), make_settings()
    write_first_life(cluster, topic)
    lock_some(cluster, one, topic)
    lock_some(cluster, two, topic)
    recreate(cluster, topic)
    written = write_second_life(cluster, topic)
    with TopicReset(KafkaPythonClient(one), one, topic) as resetting:
        assert resetting.run(AUDIT, dead_letter=True).dead_lettered == 4
    left = cluster.locks(f"redirect-{topic}")
    assert len(left) == 5
    assert all(id.startswith(f"{two.group_id}/") for id in left)
    handle_all(cluster, one, topic, written)
    is_refused(two, topic)
    assert cluster.locks(f"redirect-{topic}") == left

    with TopicReset(KafkaPythonClient(two), two, topic) as resetting:
        assert resetting.run(AUDIT, dead_letter=False).dropped == 4
    handle_all(cluster, two, topic, written)


def test_topics_are_purged_again_once_a_group_that_is_gone_is_forgotten(
    cluster: Cluster,
    kafetrain_topic: TopicFactory,
    make_settings: MakeSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kafetrain.retry.loop.PURGE_EVERY_S", 0.3)
    topic, stays, goes = kafetrain_topic(2, prefix="orders"), make_settings(), make_settings()
    write_first_life(cluster, topic)
    lock_some(cluster, goes, topic)
    handle_all(cluster, stays, topic, [Written(0, offset) for offset in range(5)] + [Written(1, 0)])
    assert cluster.begin_offsets(f"retry-{topic}") == {0: 0, 1: 0}, "nothing of a topic that groups share is purged"

    command = ("topics", "forget", goes.group_id, "--topic", topic)
    asked = kafetrain(*command, cluster=cluster, tmp_path=tmp_path)
    assert asked.returncode == 2
    assert f"{topic} 4 pending and 1 dead" in asked.stderr
    done = kafetrain(*command, "--yes", "--json", cluster=cluster, tmp_path=tmp_path)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["topics"]
    assert (found["pending_lost"], found["dead_forgotten"]) == (4, 1)
    again = kafetrain(*command, "--yes", cluster=cluster, tmp_path=tmp_path)
    assert (again.returncode, again.stdout) == (0, f"{topic}: nothing of group {goes.group_id}\n")

    assert cluster.locks(f"redirect-{topic}") == {}
    with KafkaConsumer.resilient(stays, topic, handle) as consumer:
        wait_for("it is purged", lambda: cluster.begin_offsets(f"retry-{topic}")[0] > 0, check=consumer.check)
