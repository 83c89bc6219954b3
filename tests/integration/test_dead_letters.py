"""Dead letters: what ends without success is kept whole, with the reason; and what becomes of its key."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from kafetrain import KafkaConsumer, NotRetriableError, Record, RetriableError, get_retry_attempt
from tests.integration.journal import Journal
from tests.waiting import wait_for

if TYPE_CHECKING:
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka


def reject_bad(record: Record) -> None:
    """Fails for ever for a value that begins with "bad"."""
    if record.value.startswith(b"bad"):
        raise ValueError(f"{record.value.decode()}, attempt {get_retry_attempt(record)}")


def dlq_headers(record: Any) -> dict[str, str]:
    """Our own, as text."""
    return {name: value.decode() for name, value in record.headers if name.startswith("x-dlq-")}


def test_an_exhausted_record_is_dead_lettered_whole_with_the_reason_of_its_last_failure(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings = kafetrain_topic(2, prefix="orders"), make_settings(max_retries=2)
    headers = [("tag", b"1"), ("none", None), ("tag", b"2"), ("empty", b""), ("tag", b"1"), ("none", None)]
    cluster.write(topic, b"first", b"good", partition=1)
    cluster.write_as_others_can(topic, b"\xff\x00", b"bad thing", partition=1, headers=headers)
    before_ms = int(time.time() * 1000)

    with KafkaConsumer.resilient(settings, topic, reject_bad) as consumer:
        wait_for("it is dead", lambda: dead(consumer.tracker.locks(topic)), check=consumer.check)

    (letter,) = cluster.read(f"dlq-{topic}")
    assert (letter.partition, letter.key, letter.value) == (1, b"\xff\x00", b"bad thing")
    assert letter.headers[:6] == [(name, value or b"") for name, value in headers]
    ours = dlq_headers(letter)
    first_failure, died = int(ours.pop("x-dlq-first-failure")), int(ours.pop("x-dlq-timestamp"))
    assert before_ms <= first_failure < died <= int(time.time() * 1000)
    assert before_ms - 60_000 < int(ours.pop("x-dlq-source-timestamp")) <= first_failure
    assert ours.pop("x-dlq-topic-id")
    assert ours == {
        "x-dlq-id": f"{settings.group_id}/{topic}/1/1",
        "x-dlq-group": settings.group_id,
        "x-dlq-topic": topic,
        "x-dlq-partition": "1",
        "x-dlq-offset": "1",
        "x-dlq-attempts": "3",
        "x-dlq-reason": "bad thing, attempt 2",
        "x-dlq-error-type": "ValueError",
        "x-dlq-state": "exhausted",
        "x-dlq-null-headers": "1,5",
    }
    assert cluster.committed(settings.group_id, topic)[1][0] == 2
    assert cluster.committed(settings.retry_group_id, f"retry-{topic}")[1][0] == 1


def dead(locks: list[Any]) -> bool:
    return [lock.state for lock in locks] == ["dead"]


@pytest.mark.parametrize(
    ("errors", "attempts", "error_type"),
    [
        ([NotRetriableError("never")], 1, "NotRetriableError"),
        ([RetriableError("never", retry=False)], 1, "RetriableError"),
        ([LookupError("never")], 1, "LookupError"),
        ([ValueError("perhaps"), NotRetriableError("never")], 2, "NotRetriableError"),
        ([ValueError("perhaps"), KeyError("never")], 2, "KeyError"),  # a subclass of one in never_retry_on
    ],
    ids=["not-retriable", "retry-false", "never-retry-on", "at-the-retry", "subclass-at-the-retry"],
)
def test_what_cannot_succeed_is_dead_lettered_at_once(
    cluster: Cluster,
    kafetrain_topic: TopicFactory,
    make_settings: MakeSettings,
    errors: list[Exception],
    attempts: int,
    error_type: str,
) -> None:
    topic, settings = kafetrain_topic(prefix="orders"), make_settings(max_retries=None, never_retry_on=(LookupError,))
    cluster.write(topic, b"a", b"m1")
    left = iter(errors)

    def handle(record: Record) -> None:
        raise next(left)

    with KafkaConsumer.resilient(settings, topic, handle) as consumer:
        wait_for("it is dead", lambda: dead(consumer.tracker.locks(topic)), check=consumer.check)

    (letter,) = cluster.read(f"dlq-{topic}")
    ours = dlq_headers(letter)
    assert (ours["x-dlq-state"], ours["x-dlq-attempts"]) == ("not-retriable", str(attempts))
    assert (ours["x-dlq-reason"].strip("'"), ours["x-dlq-error-type"]) == ("never", error_type)


def test_a_first_failure_is_the_last_where_no_retry_is_allowed(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings, journal = kafetrain_topic(prefix="orders"), make_settings(max_retries=0), Journal()
    cluster.write(topic, b"a", b"bad")
    with KafkaConsumer.resilient(settings, topic, journal.recording(reject_bad)) as consumer:
        wait_for("it is dead", lambda: dead(consumer.tracker.locks(topic)), check=consumer.check)
    assert journal.attempts(0) == [0]
    assert cluster.read(f"retry-{topic}") == []
    (letter,) = cluster.read(f"dlq-{topic}")
    assert dlq_headers(letter)["x-dlq-state"] == "exhausted"
    assert dlq_headers(letter)["x-dlq-attempts"] == "1"


def test_what_follows_a_dead_record_is_parked_behind_it_in_order_and_runs_never(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    """`free_on_dlq=False`, the default; also for records that come later, and after a restart."""
    topic, settings, journal = kafetrain_topic(prefix="orders"), make_settings(max_retries=1), Journal()
    written = cluster.write(topic, b"a", b"good 0", b"bad 1", b"good 2", b"bad 3", b"good 4")
    written += cluster.write(topic, b"b", b"good")
    handle = journal.recording(reject_bad)

    def parked() -> int:
        return list(cluster.dead_places(f"dlq-{topic}").values()).count("parked")

    with KafkaConsumer.resilient(settings, topic, handle) as consumer:
        wait_for("three are parked", lambda: parked() == 3, check=consumer.check)
        written += cluster.write(topic, b"a", b"good 6", b"good 7")
        wait_for("five are parked", lambda: parked() == 5, check=consumer.check)
    with KafkaConsumer.resilient(settings, topic, handle) as consumer:
        written += cluster.write(topic, b"a", b"good 8")
        wait_for("six are parked", lambda: parked() == 6, check=consumer.check)
        (lock,) = wait_for("the dead one alone is locked", lambda: only(consumer.tracker.locks(topic), pending=0))

    assert (lock.state, lock.key, lock.head) == ("dead", b"a", f"{settings.group_id}/{topic}/0/1")
    letters = cluster.read(f"dlq-{topic}")
    assert [(letter.value, dlq_headers(letter)["x-dlq-state"]) for letter in letters] == [
        (b"bad 1", "exhausted"),
        *((value, "parked") for value in (b"good 2", b"bad 3", b"good 4", b"good 6", b"good 7", b"good 8")),
    ]
    assert dlq_headers(letters[1])["x-dlq-attempts"] == "0", "it has never run"
    assert journal.offsets("started", b"a") == [0, 1, 1]
    assert journal.offsets("ended", b"b") == [5]
    entry = cluster.locks(f"redirect-{topic}")[lock.head]
    assert (entry["state"], entry["dlq_partition"], entry["dlq_offset"]) == ("dead", 0, 0)
    journal.no_loss(written, cluster.dead_places(f"dlq-{topic}"))
    journal.key_order(written, cluster.dead_places(f"dlq-{topic}"))


def only(locks: list[Any], *, pending: int) -> list[Any] | None:
    return locks if len(locks) == 1 and locks[0].pending == pending else None


def test_where_dead_keys_are_freed_the_next_record_runs(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, journal = kafetrain_topic(prefix="orders"), Journal()
    settings = make_settings(max_retries=1, free_on_dlq=True)
    written = cluster.write(topic, b"a", b"bad 0", b"good 1", b"bad 2", b"good 3", b"good 4")
    with KafkaConsumer.resilient(settings, topic, journal.recording(reject_bad)) as consumer:
        wait_for("the last has succeeded", lambda: 4 in journal.offsets("ended"), check=consumer.check)

    dead_places = cluster.dead_places(f"dlq-{topic}")
    assert dead_places == {(0, 0): "exhausted", (0, 2): "exhausted"}
    assert journal.offsets("started") == [0, 0, 1, 2, 2, 3, 4]
    journal.no_loss(written, dead_places)
    journal.key_order(written, dead_places)
    cluster.check_at_rest(settings, topic)


def test_an_engine_that_frees_dead_keys_releases_those_that_it_finds(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings, journal = kafetrain_topic(prefix="orders"), make_settings(max_retries=0), Journal()
    cluster.write(topic, b"a", b"bad 0", b"good 1")
    handle = journal.recording(reject_bad)
    with KafkaConsumer.resilient(settings, topic, handle) as consumer:
        wait_for("one is parked", lambda: len(cluster.read(f"dlq-{topic}")) == 2, check=consumer.check)

    freeing = make_settings(group_id=settings.group_id, max_retries=0, free_on_dlq=True)
    with KafkaConsumer.resilient(freeing, topic, handle) as consumer:
        cluster.write(topic, b"a", b"good 2")
        wait_for("the next has succeeded", lambda: journal.offsets("ended") == [2], check=consumer.check)
        wait_for("no key is locked", lambda: not consumer.tracker.locks(topic), check=consumer.check)

    assert list(cluster.dead_places(f"dlq-{topic}").values()) == ["exhausted", "parked"]
    cluster.check_at_rest(freeing, topic)


def test_a_dead_record_without_a_key_stops_no_other_one(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings, journal = kafetrain_topic(prefix="orders"), make_settings(max_retries=1), Journal()
    cluster.write(topic, None, b"bad 0", b"good 1", b"bad 2", b"good 3")
    with KafkaConsumer.resilient(settings, topic, journal.recording(reject_bad)) as consumer:
        wait_for("both are dead", lambda: len(cluster.read(f"dlq-{topic}")) == 2, check=consumer.check)
    assert cluster.dead_places(f"dlq-{topic}") == {(0, 0): "exhausted", (0, 2): "exhausted"}
    assert sorted(journal.offsets("ended")) == [1, 3]
