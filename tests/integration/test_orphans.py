"""P5: a lock whose record can never arrive is found and released, and no other is."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from kafetrain import KafkaConsumer, Record
from tests.integration.journal import Journal
from tests.waiting import wait_for

if TYPE_CHECKING:
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kafetrain.retry.orphans.FIRST_AFTER_S", 0.2)
    monkeypatch.setattr("kafetrain.retry.orphans.LOOK_AT", 1)  # several steps


def entry(key: bytes | None) -> bytes:
    encoded = None if key is None else base64.b64encode(key).decode()
    fields = {"v": 1, "key": encoded, "state": "pending", "attempt": 2, "due": 1, "first_failure": 1}
    return json.dumps(fields).encode()


def succeed(record: Record) -> None:
    """A handler that does."""


@pytest.mark.parametrize("written", ["before the start", "while it runs"])
def test_a_lock_below_the_committed_offset_without_a_record_is_released_and_one_above_is_not(
    cluster: Cluster,
    kafetrain_topic: TopicFactory,
    make_settings: MakeSettings,
    log: list[str],
    written: str,
) -> None:
    topic, settings, journal = kafetrain_topic(prefix="orders"), make_settings(), Journal()
    redirect, id = f"redirect-{topic}", f"{settings.group_id}/{topic}/0"
    records = cluster.write(topic, b"a", b"m1", b"m2") + cluster.write(topic, None, b"m3")

    def write_entries() -> None:
        cluster.write(redirect, f"{id}/1".encode(), entry(b"a"))
        cluster.write(redirect, f"{id}/2".encode(), entry(None))
        cluster.write(redirect, f"{id}/4".encode(), entry(b"b"))

    with KafkaConsumer.resilient(settings, topic, journal.recording(succeed)) as consumer:
        wait_for("all have succeeded", lambda: len(journal.offsets("ended")) == 3, check=consumer.check)
        wait_for("they are committed", lambda: cluster.committed(settings.group_id, topic)[0][0] == 3)
        if written == "while it runs":
            write_entries()
            wait_for("two are released", lambda: len(cluster.locks(redirect)) == 1, check=consumer.check)
            assert consumer.tracker.orphans(topic) == {0: 2}
    if written == "before the start":
        write_entries()

    with KafkaConsumer.resilient(settings, topic, journal.recording(succeed)) as consumer:
        records += cluster.write(topic, b"a", b"m4")
        wait_for("the key goes on", lambda: 3 in journal.offsets("ended"), check=consumer.check)
        wait_for("one lock is left", lambda: [k.key for k in consumer.tracker.locks(topic)] == [b"b"])
        # Its record is about to come: no orphan, but what a crash between the two writes leaves.
        records += cluster.write(topic, b"b", b"m5", b"m6")
        wait_for("all have succeeded", lambda: len(journal.offsets("ended")) == 6, check=consumer.check)

    assert sum("orphan" in line for line in log) == 2
    assert journal.attempts(4) == [2], "it has gone on from its entry, through the retry topic"
    journal.no_loss(records)
    journal.key_order(records)
    journal.once()
    cluster.check_at_rest(settings, topic)


def test_a_lock_whose_record_waits_is_no_orphan(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings, log: list[str]
) -> None:
    """Nor is the one beside an orphan: a check looks at all of them."""
    topic, journal = kafetrain_topic(prefix="orders"), Journal()
    settings = make_settings(backoff={"policy": "constant", "initial": "1h"})

    def fail_a(record: Record) -> None:
        if record.key == b"a":
            raise ValueError("no")

    cluster.write(topic, b"a", b"m1", b"m2")
    cluster.write(topic, b"b", b"m3")
    with KafkaConsumer.resilient(settings, topic, journal.recording(fail_a)) as consumer:
        wait_for("all are complete", lambda: cluster.committed(settings.group_id, topic).get(0, (0,))[0] == 3)
        cluster.write(f"redirect-{topic}", f"{settings.group_id}/{topic}/0/2".encode(), entry(b"b"))
        wait_for("the orphan is released", lambda: any("orphan" in line for line in log), check=consumer.check)
        wait_for("one key is left", lambda: len(cluster.locks(f"redirect-{topic}")) == 2, check=consumer.check)
        (lock,) = consumer.tracker.locks(topic)
    assert (lock.key, lock.pending) == (b"a", 2)
    assert sum("orphan" in line for line in log) == 1
