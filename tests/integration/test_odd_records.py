"""Records that are unusual, foreign or damaged: the unusual pass unchanged, the others stop nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from kafetrain import ErrorTracker, KafetrainError, KafkaConsumer, Record, Settings, get_retry_attempt
from kafetrain.errors import NewerFormatError
from kafetrain.record import TopicPartition
from tests.integration.journal import Journal
from tests.waiting import wait_for

if TYPE_CHECKING:
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka


def fail_first(record: Record) -> None:
    if get_retry_attempt(record) == 0:
        raise ValueError("the first time")


def make_topics(settings: Settings, topic: str) -> None:
    with ErrorTracker(settings) as tracker:
        tracker.start_tracking(topic)


def entry(*, version: int = 1) -> bytes:
    """As a redirect topic has it: of key `a`, failed once, due long ago."""
    fields = {"v": version, "key": "YQ==", "state": "pending", "attempt": 1, "due": 1, "first_failure": 1}
    return json.dumps(fields).encode()


# Unusual records of the source topic


@pytest.mark.parametrize(
    ("key", "value", "headers"),
    [
        (b"\xff\xfe\x00", b"\x80", []),
        (b"", b"", []),
        (b"a", None, []),
        (None, b"m", []),
        (None, b"", []),
        (None, None, [("user", b"1")]),
        (b"a", b"m", [("none", None), ("same", b"1"), ("same", None), ("empty", b""), ("\u00fc", b"\xff")]),
        (b"a", b"m", [("x-retry-id", b"forged"), ("x-retry-attempt", b"7"), ("x-dlq-id", b"forged")]),
    ],
    ids=["bytes", "empty", "tombstone", "no-key", "no-key-empty", "nothing", "headers", "forged-headers"],
)
def test_a_retried_and_a_dead_record_are_what_their_source_was(
    cluster: Cluster,
    kafetrain_topic: TopicFactory,
    make_settings: MakeSettings,
    key: bytes | None,
    value: bytes | None,
    headers: list[tuple[str, bytes | None]],
) -> None:
    topic, settings, seen = kafetrain_topic(prefix="orders"), make_settings(max_retries=1), []
    cluster.write_as_others_can(topic, key, value, headers=headers)

    def handle(record: Record) -> None:
        seen.append(record)
        raise ValueError("no")

    with KafkaConsumer.resilient(settings, topic, handle) as consumer:
        wait_for("it is dead", lambda: cluster.read(f"dlq-{topic}"), check=consumer.check)

    first, retried = seen
    assert (first.key, first.value, list(first.headers)) == (key, value, headers)
    assert (retried.key, retried.value) == (key, value)
    assert list(retried.headers[: len(headers)]) == headers
    assert get_retry_attempt(retried) == 1
    (letter,) = cluster.read(f"dlq-{topic}")
    sendable = b"" if key is None and value is None else value  # clients refuse a record with neither
    assert (letter.key, letter.value) == (key, sendable)
    assert letter.headers[: len(headers)] == [(name, text or b"") for name, text in headers]
    marks = {name for name, _ in letter.headers[len(headers) :] if name.startswith("x-dlq-null")}
    assert ("x-dlq-null-value" in marks) == (key is None and value is None)
    assert ("x-dlq-null-headers" in marks) == any(text is None for _, text in headers)


def test_records_without_a_key_wait_for_none_but_themselves(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings, journal = kafetrain_topic(prefix="orders"), make_settings(), Journal()
    written = cluster.write(topic, None, b"m1", b"m2", b"m3")

    def handle(record: Record) -> None:
        if record.value == b"m1":
            raise ValueError("no")

    with KafkaConsumer.resilient(
        make_settings(group_id=settings.group_id, backoff={"policy": "constant", "initial": "1h"}),
        topic,
        journal.recording(handle),
    ) as consumer:
        wait_for("the others have ended", lambda: journal.offsets("ended") == [1, 2], check=consumer.check)
        (lock,) = wait_for("the first waits", lambda: consumer.tracker.locks(topic))
    assert (lock.key, lock.pending) == (None, 1)
    journal.key_order(written)


def test_records_of_an_aborted_transaction_never_run_and_those_of_a_committed_one_do(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    """Between them stand markers that are no records: positions have gaps, and none of them is waited for."""
    topic, settings, seen = kafetrain_topic(prefix="orders"), make_settings(), list[tuple[bytes, int]]()
    cluster.write_in_transactions(
        topic,
        ("abort", [(b"a", b"aborted"), (b"b", b"aborted")]),
        ("commit", [(b"a", b"m1"), (b"b", b"m2")]),
        ("abort", [(b"a", b"aborted")]),
        ("commit", [(b"a", b"m3")]),
    )

    def handle(record: Record) -> None:
        seen.append((record.value, get_retry_attempt(record)))
        fail_first(record)

    with KafkaConsumer.resilient(settings, topic, handle) as consumer:
        wait_for("all have succeeded", lambda: len(seen) == 6, check=consumer.check)
    assert [value for value, attempt in seen if attempt == 1] in ([b"m1", b"m2", b"m3"], [b"m1", b"m3", b"m2"])
    assert not any(value == b"aborted" for value, _ in seen)
    (end,) = cluster.end_offsets(topic).values()
    assert cluster.committed(settings.group_id, topic)[0][0] in (end - 1, end), "the last marker may stand behind it"
    assert cluster.locks(f"redirect-{topic}") == {}


# Foreign and damaged records of the auxiliary topics


def test_foreign_and_damaged_records_in_the_redirect_topic_are_logged_once_and_passed_over(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings, log: list[str]
) -> None:
    topic, settings, journal = kafetrain_topic(prefix="orders"), make_settings(), Journal()
    make_topics(settings, topic)
    redirect, group = f"redirect-{topic}", settings.group_id
    damaged = [b"\xff\xfe", b"", b"hello", b"a/b/c", f"{group}/{topic}/0/x".encode(), f"{group}/{topic}/-1/0".encode()]
    foreign = [f"other/{topic}/0/0".encode(), f"{group}/other/0/0".encode(), b"group/other"]
    cluster.write_all(redirect, [(0, id, entry()) for id in damaged + foreign])
    cluster.write(redirect, foreign[0], None)
    cluster.write(redirect, b"nobody's", None)

    written = cluster.write(topic, b"a", b"m1", b"m2")
    with KafkaConsumer.resilient(settings, topic, journal.recording(fail_first)) as consumer:
        wait_for("both have succeeded", lambda: journal.offsets("ended") == [0, 1], check=consumer.check)
        counted = consumer.tracker.malformed(topic)[TopicPartition(redirect, 0)]

    assert counted == len(damaged) + 2, "the damaged, nobody's tombstone, and a registration that is none"
    assert sum("not ours or is damaged" in line for line in log) == counted
    journal.key_order(written)
    cluster.check_at_rest(settings, topic)


def test_garbage_in_the_place_of_an_entry_is_a_pending_lock_and_its_record_still_runs_first(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    """The source was not committed past it: the record is delivered again and takes its place in the retry topic."""
    topic, settings, journal = kafetrain_topic(prefix="orders"), make_settings(), Journal()
    make_topics(settings, topic)
    cluster.write(f"redirect-{topic}", f"{settings.group_id}/{topic}/0/0".encode(), b"\x00garbage")
    written = cluster.write(topic, b"a", b"m1", b"m2", b"m3")

    with KafkaConsumer.resilient(settings, topic, journal.recording(lambda record: None)) as consumer:
        wait_for("all have succeeded", lambda: len(journal.offsets("ended")) == 3, check=consumer.check)

    assert journal.offsets("started") == [0, 1, 2]
    assert len(cluster.read(f"retry-{topic}")) >= 1
    journal.key_order(written)
    cluster.check_at_rest(settings, topic)


def test_a_lock_whose_entry_became_garbage_goes_on_with_what_its_retry_record_says(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings, journal = kafetrain_topic(prefix="orders"), make_settings(), Journal()
    written = cluster.write(topic, b"a", b"m1", b"m2")
    stop_at_first = journal.recording(lambda record: fail_first(record))
    slow = make_settings(group_id=settings.group_id, backoff={"policy": "constant", "initial": "1h"})
    with KafkaConsumer.resilient(slow, topic, stop_at_first) as consumer:
        wait_for("both wait", lambda: len(cluster.read(f"retry-{topic}")) == 2, check=consumer.check)
    head = f"{settings.group_id}/{topic}/0/0"
    # Read first, the garbage is all there is: what compaction leaves.
    offset = next(r.offset for r in cluster.read(f"redirect-{topic}") if r.key == head.encode())
    cluster.write(f"redirect-{topic}", head.encode(), b"[1, 2")
    cluster.delete_records(f"redirect-{topic}", {0: offset + 1})

    journal.interrupted()
    due_now = make_settings(group_id=settings.group_id, max_retries=1)
    with KafkaConsumer.resilient(due_now, topic, journal.recording(lambda record: None)) as consumer:
        (lock,) = wait_for("it is locked again", lambda: readable(consumer.tracker.locks(topic)), check=consumer.check)

    assert (lock.key, lock.attempt, lock.pending) == (b"a", 1, 2), "key, attempt and due are the retry record's"
    journal.key_order(written)


def readable(locks: list[Any]) -> list[Any] | None:
    return locks if [lock.key for lock in locks] == [b"a"] else None


Damage = Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]]


@pytest.mark.parametrize(
    "damage",
    [
        lambda headers: [],
        lambda headers: [pair for pair in headers if pair[0] != "x-retry-lock-offset"],
        lambda headers: [(n, b"x" if n == "x-retry-lock-offset" else v) for n, v in headers],
        lambda headers: [(n, b"orders/7" if n == "x-retry-id" else v) for n, v in headers],
        lambda headers: [(n, b"\xff" if n == "x-retry-id" else v) for n, v in headers],
    ],
    ids=["no-headers", "no-lock-offset", "no-number", "no-id", "no-text"],
)
def test_a_damaged_record_in_the_retry_topic_becomes_a_malformed_dead_letter(
    cluster: Cluster,
    kafetrain_topic: TopicFactory,
    make_settings: MakeSettings,
    log: list[str],
    damage: Damage,
) -> None:
    topic, settings, journal = kafetrain_topic(prefix="orders"), make_settings(), Journal()
    cluster.write(topic, b"a", b"m1")
    with KafkaConsumer.resilient(settings, topic, journal.recording(fail_first)) as consumer:
        wait_for("it has succeeded", lambda: journal.offsets("ended") == [0], check=consumer.check)
        (good,) = cluster.read(f"retry-{topic}")
        cluster.write(f"retry-{topic}", b"k", b"v", headers=damage(good.headers))
        wait_for("it is dead", lambda: cluster.read(f"dlq-{topic}"), check=consumer.check)
        cluster.write(topic, b"b", b"m2")
        wait_for("the next has succeeded", lambda: journal.offsets("ended") == [0, 1], check=consumer.check)

    (letter,) = cluster.read(f"dlq-{topic}")
    headers = dict(letter.headers)
    assert (letter.key, letter.value, headers["x-dlq-state"]) == (b"k", b"v", b"malformed")
    assert (headers["x-dlq-topic"], headers["x-dlq-offset"]) == (f"retry-{topic}".encode(), b"1")
    assert sum("not a retry record" in line for line in log) == 1
    cluster.check_at_rest(settings, topic)


def test_a_record_with_nothing_at_all_in_the_retry_topic_becomes_a_dead_letter_too(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings = kafetrain_topic(prefix="orders"), make_settings()
    with KafkaConsumer.resilient(settings, topic, fail_first) as consumer:
        cluster.write_as_others_can(f"retry-{topic}", None, None)
        (letter,) = wait_for("it is dead", lambda: cluster.read(f"dlq-{topic}"), check=consumer.check)
    assert (letter.key, letter.value, dict(letter.headers)["x-dlq-null-value"]) == (None, b"", b"1")
    cluster.check_at_rest(settings, topic)


@pytest.mark.parametrize("arrives", ["before the start", "while it runs"])
def test_an_entry_of_a_newer_format_stops_its_partition_with_an_error(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings, arrives: str
) -> None:
    topic, settings, journal = kafetrain_topic(prefix="orders"), make_settings(), Journal()
    make_topics(settings, topic)
    redirect, id = f"redirect-{topic}", f"{settings.group_id}/{topic}/0/5".encode()

    def run() -> None:
        with KafkaConsumer.resilient(settings, topic, journal.recording(fail_first)) as consumer:
            if arrives == "while it runs":
                cluster.write(topic, b"a", b"m1")
                wait_for("it has succeeded", lambda: journal.offsets("ended") == [0], check=consumer.check)
                cluster.write(redirect, id, entry(version=2))
            wait_for("it stops", lambda: False, timeout=120, check=consumer.check)

    if arrives == "before the start":
        cluster.write(redirect, id, entry(version=2))
        cluster.write(topic, b"a", b"m1")
    with pytest.raises(NewerFormatError, match=rf"{redirect}\[0\]@\d+ has format 2, and .* knows up to 1") as stopped:
        run()
    assert isinstance(stopped.value, KafetrainError)
    assert journal.offsets("ended") == ([] if arrives == "before the start" else [0])
