"""`delivery="transactional"`: the same promises, and nothing twice in the topics.

What other modules hold of the retries holds here too: their tests run once more, with transactions.
"""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from kafetrain import KafkaConsumer, Record, RetriableError, is_retry_message
from kafetrain.client.confluent_transactions import ConfluentTransactions
from kafetrain.client.kafka_python_transactions import KafkaPythonTransactions
from kafetrain.errors import RecordTooLargeError
from tests.integration import test_controls, test_retries
from tests.integration.journal import Journal, Written
from tests.integration.test_retries import Failing
from tests.integration.twice import committed_records, nothing_twice
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings

pytest_plugins = ["tests.integration.cluster"]
pytestmark = [pytest.mark.kafka, pytest.mark.usefixtures("transactional")]


@pytest.fixture
def transactional(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all settings that are made."""
    monkeypatch.setenv("KAFETRAIN_DELIVERY", "transactional")


# Once more

test_order = test_retries.test_records_of_a_key_are_handled_to_the_end_in_their_order_however_often_each_fails
test_many_keys = test_retries.test_many_keys_with_many_failures_keep_their_order_and_leave_nothing_behind
test_independence = test_retries.test_a_key_that_waits_an_hour_delays_no_other_key_of_its_partition
test_shared_partitions = test_retries.test_source_partitions_that_share_a_retry_partition_keep_their_chains_apart
test_several_topics = test_retries.test_one_consumer_handles_several_topics_each_with_retries_of_its_own
test_replay = test_controls.test_a_dead_key_is_replayed_in_order_before_anything_newer
test_replay_that_fails = test_controls.test_a_replay_of_a_parked_record_that_fails_again_kills_the_key_again
test_release = test_controls.test_a_release_while_the_consumer_is_down_is_obeyed_at_its_start
test_retry_now = test_controls.test_what_is_not_due_runs_now
test_skip = test_controls.test_a_head_that_is_skipped_is_a_dead_letter_and_the_next_runs
test_append = test_controls.test_a_dead_letter_of_a_key_that_is_not_dead_is_put_into_retry_once


@pytest.mark.parametrize(
    ("free", "states"),
    [(False, {0: "exhausted", 1: "parked", 2: "parked"}), (True, {0: "exhausted"})],
    ids=["dead keys stand still", "dead keys are freed"],
)
def test_dead_keys_park_what_follows_and_freed_ones_do_not(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings, free: bool, states: dict[int, str]
) -> None:
    topic, settings, journal = (
        kafetrain_topic(prefix="orders"),
        make_settings(max_retries=1, free_on_dlq=free),
        Journal(),
    )
    written = cluster.write(topic, b"a", b"m1 fails 9", b"m2", b"m3")
    written += cluster.write(topic, b"b", b"other fails 1")
    with KafkaConsumer.resilient(settings, topic, journal.recording(Failing())) as consumer:
        wait_for("some are dead", lambda: len(cluster.read(f"dlq-{topic}")) == len(states), check=consumer.check)
        wait_for("others succeed", lambda: len(journal.places("ended")) == 4 - len(states), check=consumer.check)
        wait_for(
            "nothing is pending",
            lambda: all(lock.state == "dead" and not lock.pending for lock in consumer.tracker.locks(topic)),
        )
    dead = cluster.dead_places(f"dlq-{topic}")
    assert {offset: state for (_, offset), state in dead.items()} == states
    journal.no_loss(written, dead)
    journal.key_order(written, dead)
    journal.honest_attempts()
    nothing_twice(cluster.broker, topic)


def test_a_dead_letter_without_a_lock_is_not_written_twice_when_its_record_comes_again(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    """An earlier record of its partition is open at the stop, so the committed offset is below it."""
    topic, journal = kafetrain_topic(prefix="orders"), Journal()
    settings = make_settings(max_retries=0, free_on_dlq=True, concurrency=2, shutdown_timeout=timedelta(seconds=1))
    (slow, bad) = cluster.write_all(topic, [(0, b"slow", b"s"), (0, b"bad", b"b fails 9")])
    release = threading.Event()

    def handle(record: Record) -> None:
        if record.key == b"slow":
            release.wait(30)
        failing(record)

    failing = Failing()
    with KafkaConsumer.resilient(settings, topic, journal.recording(handle)) as consumer:
        wait_for("it is dead", lambda: len(cluster.read(f"dlq-{topic}")) == 1, check=consumer.check)
    assert cluster.committed(settings.group_id, topic)[0][0] == slow.offset
    release.set()
    journal.interrupted()
    with KafkaConsumer.resilient(settings, topic, journal.recording(handle)) as consumer:
        wait_for("the slow one succeeds", lambda: slow.offset in journal.offsets("ended"), check=consumer.check)
        wait_for("all is committed", lambda: cluster.committed(settings.group_id, topic)[0][0] == bad.offset + 1)
    assert journal.offsets("started", b"bad") == [bad.offset], "it has ended, which a tombstone proves"
    nothing_twice(cluster.broker, topic)


def test_the_source_offset_is_committed_with_the_lock(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not by the loop's own commit, which here never comes."""
    monkeypatch.setattr("kafetrain.ownership.Ownership.commit_if_due", lambda owned, **given: None)
    topic, settings = kafetrain_topic(prefix="orders"), make_settings(backoff={"policy": "constant", "initial": "0s"})
    cluster.write(topic, b"a", b"m1 fails 1")
    journal = Journal()
    with KafkaConsumer.resilient(settings, topic, journal.recording(Failing())) as consumer:
        wait_for("its offset is there", lambda: cluster.committed(settings.group_id, topic).get(0, (0,))[0] == 1)
        retried = wait_for(
            "the retry's too",
            lambda: cluster.committed(settings.retry_group_id, f"retry-{topic}"),
            check=consumer.check,
        )
    assert retried[0][0] >= 1
    assert journal.attempts(0) == [0, 1]


def test_two_instances_hand_partitions_over_and_nothing_is_twice(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, journal = kafetrain_topic(4, prefix="orders"), Journal()
    settings = make_settings(concurrency=2, client_options={"heartbeat_interval_ms": 100})
    failing, written = Failing(), list[Written]()

    def write() -> None:
        more = range(len(written), len(written) + 60)
        written.extend(cluster.write_all(topic, [(n % 4, b"key-%d" % (n % 20), b"m fails %d" % (n % 3)) for n in more]))

    def ended() -> int:
        return len(set(journal.places("ended")))

    def second_takes_part() -> bool:
        if ended() == len(written):  # the first one was faster than the rebalance
            write()
        return any(event.instance == "second" for event in journal.events)

    write()
    first = KafkaConsumer.resilient(settings, topic, journal.recording(failing, "first"))
    second = KafkaConsumer.resilient(settings, topic, journal.recording(failing, "second"))
    with first:
        wait_for("the first one works", lambda: ended() > 20, check=first.check)
        with second:
            write()
            wait_for("the second one takes part", second_takes_part, check=second.check)
            write()
            wait_for("most have ended", lambda: ended() > len(written) - 40, check=first.check)
        write()
        wait_for("all have ended", lambda: ended() == len(written), check=first.check)
        wait_for("all is free", lambda: not first.tracker.locks(topic))
    journal.no_loss(written)
    journal.key_order(written)
    journal.once()
    cluster.check_at_rest(settings, topic)
    nothing_twice(cluster.broker, topic)


def test_an_answer_that_is_lost_is_asked_for_and_nothing_is_twice(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every third commit; each second of these had reached the broker."""
    mutex, count = threading.Lock(), 0

    def losing_some(end: Callable[[Any], None]) -> Callable[[Any], None]:
        def lose(producer: object) -> None:
            nonlocal count
            with mutex:
                count += 1
                number = count
            if number % 3 or number % 2 == 0:
                end(producer)
            if number % 3 == 0:
                raise OSError("cut off")

        return lose

    topic, settings, journal = kafetrain_topic(2, prefix="orders"), make_settings(), Journal()
    records = [(at % 2, b"key-%d" % (at % 4), b"m fails %d" % (at % 3)) for at in range(24)]
    written = cluster.write_all(topic, records)
    for kind in (KafkaPythonTransactions, ConfluentTransactions):
        monkeypatch.setattr(kind, "_end", losing_some(kind._end))
    with KafkaConsumer.resilient(settings, topic, journal.recording(Failing())) as consumer:
        wait_for("all succeed", lambda: len(journal.places("ended")) == 24, timeout=120, check=consumer.check)
        wait_for("all is free", lambda: not consumer.tracker.locks(topic))
    assert count > 9
    journal.no_loss(written)
    journal.key_order(written)
    journal.honest_attempts()
    journal.once()
    nothing_twice(cluster.broker, topic)


def test_a_record_that_is_too_large_stops_the_consumer_and_the_others_with_it_are_written(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings = kafetrain_topic(prefix="orders"), make_settings()
    consumer = KafkaConsumer.resilient(settings, topic, Failing())
    consumer.start()
    wait_for("its topics are there", lambda: cluster.exists(f"retry-{topic}"))
    cluster.configure(f"retry-{topic}", {"max.message.bytes": "2000"})
    cluster.write_all(topic, [(0, b"a", b"m fails 9"), (0, b"b", os.urandom(5_000) + b" fails 9")])
    wait_for("it has stopped", lambda: consumer._ended)
    with pytest.raises(RecordTooLargeError, match=rf"{topic}\[0\]@1"):
        consumer.stop()
    assert [record.key for record in committed_records(cluster.broker, f"retry-{topic}")] == [b"a"]
    assert cluster.committed(settings.group_id, topic)[0][0] == 1


def test_what_fails_together_shares_transactions(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    """Or each would cost two round trips of its own. Every transaction leaves one marker in a partition."""
    topic, settings, count = kafetrain_topic(2, prefix="orders"), make_settings(concurrency=4), 1_000
    retry = f"retry-{topic}"
    cluster.write_all(topic, [(at % 2, b"key-%d" % at, b"m") for at in range(count)])

    def fail(record: Record) -> None:
        assert not is_retry_message(record)
        raise RetriableError("later", delay=timedelta(hours=1))

    with KafkaConsumer.resilient(settings, topic, fail) as consumer:
        wait_for("all are locked", lambda: len(consumer.tracker.locks(topic)) == count, check=consumer.check)
    assert len(committed_records(cluster.broker, retry)) == count
    assert sum(cluster.end_offsets(retry).values()) - count < count / 4
    nothing_twice(cluster.broker, topic)


def test_a_stop_leaves_no_thread_and_no_transaction(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings = kafetrain_topic(prefix="orders"), make_settings()
    before = set(threading.enumerate())
    for turn in range(3):
        journal = Journal()
        cluster.write(topic, b"a", b"m fails 1")
        with KafkaConsumer.resilient(settings, topic, journal.recording(Failing())) as consumer:
            wait_for("it succeeds", lambda: journal.offsets("ended") == [turn], check=consumer.check)  # noqa: B023 - called before the next turn
    wait_for("all threads have ended", lambda: set(threading.enumerate()) <= before, timeout=90)
    for name in (f"retry-{topic}", f"redirect-{topic}"):
        assert committed_records(cluster.broker, name), "readers are held up by nothing"
    cluster.check_at_rest(settings, topic)
