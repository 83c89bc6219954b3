"""What waits is bounded in memory, and the bound delays nothing that may run."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from kafetrain import KafkaConsumer, Record, RetriableError, get_retry_attempt
from kafetrain.core.schedule import RetrySchedule
from tests.integration.journal import Journal
from tests.waiting import wait_for

if TYPE_CHECKING:
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Records and bytes in memory, each time that a schedule has shed what was too much."""
    seen: list[tuple[int, int]] = []
    shed: Callable[[RetrySchedule, int], None] = RetrySchedule.shed

    def shed_and_look(self: RetrySchedule, now_ms: int) -> None:
        shed(self, now_ms)
        seen.append((self.loaded_records, self.loaded_bytes))

    monkeypatch.setattr(RetrySchedule, "shed", shed_and_look)
    return seen


@pytest.mark.parametrize(
    ("bound", "most_records", "most_bytes"),
    [({"max_held_records": 20}, 20, 1 << 40), ({"max_held_bytes": 20_000}, 1 << 40, 20_000)],
    ids=["records", "bytes"],
)
def test_a_key_that_is_due_runs_though_far_more_than_the_bound_waits_before_it(
    cluster: Cluster,
    kafetrain_topic: TopicFactory,
    make_settings: MakeSettings,
    loaded: list[tuple[int, int]],
    bound: dict[str, Any],
    most_records: int,
    most_bytes: int,
) -> None:
    """300 records of ten keys wait; in the end they run too, from payloads that were dropped and fetched again."""
    topic, settings, journal = kafetrain_topic(prefix="orders"), make_settings(**bound), Journal()

    def handle(record: Record) -> None:
        if record.value.startswith(b"first") and get_retry_attempt(record) == 0:
            raise RetriableError("no", delay=timedelta(hours=0 if record.key == b"due" else 1))

    written = cluster.write_all(
        topic, [(0, b"key-%d" % (at % 10), (b"first" if at < 10 else b"later").ljust(500)) for at in range(300)]
    )
    written += cluster.write(topic, b"due", b"first", b"later", b"later")
    with KafkaConsumer.resilient(settings, topic, journal.recording(handle)) as consumer:
        wait_for("that key is through", lambda: journal.offsets("ended") == [300, 301, 302], check=consumer.check)
        for id, entry in cluster.locks(f"redirect-{topic}").items():
            if entry["attempt"] == 1:  # as an operator does who wants the others now
                cluster.write(f"redirect-{topic}", id.encode(), json.dumps({**entry, "due": 1}).encode())
        wait_for("all have succeeded", lambda: len(journal.offsets("ended")) == 303, check=consumer.check)

    assert loaded, "the bound was reached"
    assert max(records for records, _ in loaded) <= most_records
    assert max(size for _, size in loaded) <= most_bytes
    journal.no_loss(written)
    journal.key_order(written)
    journal.honest_attempts()
    journal.once()
    cluster.check_at_rest(settings, topic)


def test_a_source_partition_hands_out_no_more_than_its_bound_while_handlers_are_slow(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    """One slow partition is paused; the other one goes on, and nothing is lost when it is resumed."""
    topic, journal = kafetrain_topic(2, prefix="orders"), Journal()
    settings = make_settings(max_held_records=20, concurrency=2)
    release: list[bool] = []

    def handle(record: Record) -> None:
        if record.partition == 0:
            wait_for("it is released", lambda: release)

    written = cluster.write_all(topic, [(0, b"slow", b"m%d" % at) for at in range(300)])
    with KafkaConsumer.resilient(settings, topic, journal.recording(handle)) as consumer:
        wait_for("the slow one runs", lambda: journal.places("started"), check=consumer.check)
        written += cluster.write_all(topic, [(1, b"quick-%d" % (at % 5), b"m%d" % at) for at in range(300)])
        wait_for("the other is through", lambda: len(journal.places("ended")) == 300, check=consumer.check)
        release.append(True)
        wait_for("all have succeeded", lambda: len(journal.places("ended")) == 600, check=consumer.check)
    journal.no_loss(written)
    journal.key_order(written)
    journal.once()
    cluster.check_at_rest(settings, topic)
