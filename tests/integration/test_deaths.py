"""What dies by its age, and who is told of the dead."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from kafetrain import (
    ConstantBackoff,
    ErrorTracker,
    Handler,
    KafkaConsumer,
    NotRetriableError,
    Outcome,
    Record,
    get_retry_attempt,
    is_retry_message,
)
from tests.integration.journal import Journal
from tests.waiting import wait_for

if TYPE_CHECKING:
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka


def not_due(outcome: Outcome) -> Outcome | None:
    return None if outcome is Outcome.NOT_DUE else outcome


# Death by age


def refused(record: Record) -> None:
    raise ConnectionError("refused")


def test_with_an_age_a_record_dies_by_it_and_not_by_the_number_of_its_runs(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, journal = kafetrain_topic(prefix="orders"), Journal()
    settings = make_settings(
        maximum_attempts_age=timedelta(seconds=1), backoff=ConstantBackoff(timedelta(milliseconds=50))
    )
    cluster.write(topic, b"a", b"m1", b"m2")
    with KafkaConsumer.resilient(settings, topic, journal.recording(refused)) as consumer:
        letters = wait_for("both are dead", lambda: two(cluster.read(f"dlq-{topic}")), check=consumer.check)
    headers = [{name: value.decode() for name, value in letter.headers} for letter in letters]
    assert [found["x-dlq-state"] for found in headers] == ["exhausted", "parked"]
    lived_ms = int(headers[0]["x-dlq-timestamp"]) - int(headers[0]["x-dlq-first-failure"])
    assert lived_ms > 1000
    runs = [event for event in journal.events if event.kind == "started"]
    assert len(runs) == int(headers[0]["x-dlq-attempts"]) > 6, "more than max_retries has by itself"
    assert runs[-2].time - runs[0].time <= 1.1


def two(found: list[Any]) -> list[Any]:
    return found if len(found) == 2 else []


def test_a_retry_in_a_loop_of_ones_own_dies_by_age_too(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic = kafetrain_topic(prefix="orders")
    settings = make_settings(
        maximum_attempts_age=timedelta(milliseconds=1), backoff=ConstantBackoff(timedelta(milliseconds=20))
    )
    cluster.write(topic, b"a", b"m1")
    with ErrorTracker(settings) as tracker:
        tracker.start_tracking(topic)
        (record,) = cluster.read(topic)
        assert tracker.process(record, refused) is Outcome.REDIRECTED, "its first failure is now"
        (retried,) = cluster.read(tracker.get_retry_topic(topic))
        outcome = wait_for("it is due", lambda: not_due(tracker.process(retried, refused)))
    assert outcome is Outcome.DEAD_LETTERED
    assert list(cluster.dead_places(f"dlq-{topic}").values()) == ["exhausted"]


# Hooks


class Told:
    """Both hooks, and what they were told."""

    def __init__(self) -> None:
        self.letters: list[tuple[Record, BaseException]] = []
        self.keys: list[bytes | None] = []

    def on_dead_letter(self, record: Record, error: BaseException) -> None:
        self.letters.append((record, error))

    def on_dead_key(self, key: bytes | None) -> None:
        self.keys.append(key)


def rejecting(record: Record) -> None:
    if record.value == b"never":
        raise NotRetriableError("never")
    if record.value.startswith(b"bad"):
        raise ValueError(f"attempt {get_retry_attempt(record)}")


@pytest.mark.parametrize("free_on_dlq", [False, True])
def test_hooks_are_told_of_what_died_on_both_sides_and_of_nothing_else(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings, free_on_dlq: bool
) -> None:
    topic, told = kafetrain_topic(prefix="orders"), Told()
    settings = make_settings(max_retries=2, free_on_dlq=free_on_dlq)
    cluster.write(topic, b"a", b"bad", b"behind it")
    cluster.write(topic, b"b", b"never")
    cluster.write(topic, b"c", b"good")
    cluster.write(topic, None, b"bad too")
    consumer = KafkaConsumer.resilient(
        settings, topic, rejecting, on_dead_letter=told.on_dead_letter, on_dead_key=told.on_dead_key
    )
    with consumer:
        wait_for("three are dead", lambda: len(told.letters) == 3, check=consumer.check)
        wait_for("the other is parked or succeeds", lambda: at_rest(cluster, consumer.tracker, topic, free_on_dlq))
    died = {record.value: (record, error) for record, error in told.letters}
    record, error = died[b"bad"]
    assert (record.topic, record.partition, record.offset, record.key) == (topic, 0, 0, b"a")
    assert is_retry_message(record)
    assert (get_retry_attempt(record), type(error), str(error)) == (2, ValueError, "attempt 2"), "as the handler had it"
    record, error = died[b"never"]
    assert (record.offset, is_retry_message(record), type(error)) == (2, False, NotRetriableError)
    assert sorted(told.keys, key=str) == ([] if free_on_dlq else [None, b"a", b"b"])


def at_rest(cluster: Cluster, tracker: ErrorTracker, topic: str, free_on_dlq: bool) -> bool:
    states = sorted(cluster.dead_places(f"dlq-{topic}").values())
    dead = ["exhausted", "exhausted", "not-retriable"]
    if free_on_dlq:
        return states == dead and not tracker.locks(topic)
    return states == [*dead, "parked"] and [lock.pending for lock in tracker.locks(topic)] == [0, 0, 0]


def test_a_loop_of_ones_own_tells_them_as_well(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings, told = kafetrain_topic(prefix="orders"), make_settings(max_retries=1), Told()
    cluster.write(topic, b"a", b"bad")
    with ErrorTracker(settings, on_dead_letter=told.on_dead_letter, on_dead_key=told.on_dead_key) as tracker:
        tracker.start_tracking(topic)
        (record,) = cluster.read(topic)
        assert tracker.process(record, rejecting) is Outcome.REDIRECTED
        (retried,) = cluster.read(tracker.get_retry_topic(topic))
        outcome = wait_for("it is due", lambda: not_due(tracker.process(retried, rejecting)))
        assert outcome is Outcome.DEAD_LETTERED
    ((given, error),) = told.letters
    assert given is retried
    assert str(error) == "attempt 1"
    assert told.keys == [b"a"]


@pytest.fixture
def finish() -> Iterator[threading.Event]:
    """Ends hooks that hang, also where the test fails."""
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize("hangs", [False, True], ids=["raises", "hangs"])
def test_a_hook_that_fails_or_hangs_touches_nothing(
    cluster: Cluster,
    kafetrain_topic: TopicFactory,
    make_settings: MakeSettings,
    log: list[str],
    finish: threading.Event,
    hangs: bool,
) -> None:
    topic, settings, journal = kafetrain_topic(prefix="orders"), make_settings(free_on_dlq=True), Journal()
    called = list[Record]()

    def alarm(record: Record, error: BaseException) -> None:
        called.append(record)
        if hangs:
            finish.wait(30)
        raise LookupError("the pager is broken")

    written = cluster.write_all(topic, [(0, b"key-%d" % at, b"m" if at % 2 else b"never") for at in range(40)])
    handle: Handler = journal.recording(rejecting)
    consumer = KafkaConsumer.resilient(settings, topic, handle, on_dead_letter=alarm)
    with consumer:
        wait_for("the good succeed", lambda: len(journal.offsets("ended")) == 20, check=consumer.check)
        wait_for("the bad are dead", lambda: len(cluster.read(f"dlq-{topic}")) == 20, check=consumer.check)
        wait_for("the hook was called", lambda: len(called) == (1 if hangs else 20), check=consumer.check)
        asked = Journal.now()
    assert Journal.now() - asked < 8, "its stop does not wait for a hook"
    journal.no_loss(written, cluster.dead_places(f"dlq-{topic}"))
    said = [line for line in log if "hook" in line]
    hanging = "closing while a hook runs: what it was not told yet is dropped"
    assert said == [hanging if hangs else "the hook raised LookupError; said once"]
    cluster.check_at_rest(settings, topic)
