"""What the bare library's consumers do wrong, and that ours do not.

A test whose first half fails means good news: the library is mended, and its workaround can go.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from kafka import errors as kafka_errors
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.record.default_records import DefaultRecordBatch
from kafka.structs import OffsetAndMetadata

from kafetrain.client.ports import ClientError
from kafetrain.record import TopicPartition
from tests.contract.bare_kafka_python import LONG_ENOUGH_S, bare_consumer, they
from tests.contract.conftest import A_MOMENT, PARTITIONS, Cluster
from tests.waiting import wait_for


def test_a_resumed_partition_stalls_for_good(kafka_cluster: Cluster) -> None:
    """Pause one that has data fetched, drain another, resume."""
    topic = kafka_cluster.topic()
    first, second = they(topic, 0), they(topic, 1)
    for partition in (0, 1):
        kafka_cluster.write(topic, 100, partition)

    def count_after(poll: Callable[[], Any], pause: Callable[..., Any], resume: Callable[..., Any]) -> dict[Any, int]:
        """Deliver some of both, pause the one in line, read the other to its end, resume, and read on."""
        counts = {first: 0, second: 0}

        def step() -> bool:
            for place, batch in poll().items():
                counts[place] += len(batch)
            return False

        wait_for("the first records", lambda: step() or sum(counts.values()) > 0)
        in_line = max(counts, key=lambda place: counts[place])
        other = second if in_line == first else first
        pause(in_line)
        wait_for("the other's end", lambda: step() or counts[other] == 100)
        resume(in_line)
        give_up_at = time.monotonic() + LONG_ENOUGH_S
        while counts[in_line] < 100 and time.monotonic() < give_up_at:
            step()
        return counts

    with bare_consumer(kafka_cluster, max_poll_records=10) as bare:
        bare.assign([first, second])
        stalled = count_after(lambda: bare.poll(timeout_ms=20), bare.pause, bare.resume)
        assert min(stalled.values()) < 100, "the library brings parked records back"

    reader = kafka_cluster.reader()
    reader.assign({TopicPartition(*first): 0, TopicPartition(*second): 0})
    assert count_after(
        lambda: reader.poll(A_MOMENT, max_records=10),
        lambda place: reader.pause([TopicPartition(*place)]),
        lambda place: reader.resume([TopicPartition(*place)]),
    ) == {first: 100, second: 100}


def test_a_damaged_batch_makes_poll_spin(kafka_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    place = TopicPartition(kafka_cluster.topic(), 0)
    kafka_cluster.write(place.topic, 3)

    def first_error(poll: Callable[[], Any]) -> Exception | None:
        try:
            poll()
        except Exception as error:
            return error
        return None

    with bare_consumer(kafka_cluster) as bare:
        bare.assign([they(*place)])
        with monkeypatch.context() as damaged:
            damaged.setattr(DefaultRecordBatch, "validate_crc", lambda _: False)
            error = wait_for("an error", lambda: first_error(lambda: bare.poll(timeout_ms=20)))
            assert isinstance(error, kafka_errors.CorruptRecordError)

        def spin() -> None:
            with suppress(AttributeError):  # of being let go, below
                bare.poll(timeout_ms=20)

        polling = threading.Thread(target=spin, daemon=True)
        polling.start()
        polling.join(LONG_ENOUGH_S)
        assert polling.is_alive(), "the library's poll returns after a damaged batch"
        bare._fetcher._next_partition_records = None  # which lets it go
        polling.join(5)

    reader = kafka_cluster.reader()
    reader.assign({place: 0})
    with monkeypatch.context() as damaged:
        damaged.setattr(DefaultRecordBatch, "validate_crc", lambda _: False)
        for _ in range(2):  # it is the same again and again, each time within its timeout
            caught = wait_for("an error", lambda: first_error(lambda: reader.poll(A_MOMENT)))
            assert isinstance(caught, ClientError)
            assert caught.retriable
    assert reader.position(place) == 0
    batch = wait_for("the records", lambda: reader.poll(A_MOMENT))
    assert [record.offset for record in batch[place]] == [0, 1, 2]


class Waiting(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    def __init__(self, consumer: Any) -> None:
        self.consumer = consumer
        self.is_waiting = False
        self.may_go = True
        self.events: list[str] = []

    async def on_partitions_assigned(self, assigned: Any) -> None:
        self.events.append("assigned")

    async def on_partitions_revoked(self, revoked: Any) -> None:
        self.events.append("revoked")
        while not self.may_go:
            self.is_waiting = True
            await self.consumer._net.sleep(0.005)
        self.is_waiting = False


def test_a_waiting_listener_blocks_poll(kafka_cluster: Cluster) -> None:
    """Ours: test_a_rebalance_waits_for_work_in_flight_and_commits_what_it_leaves."""
    topic = kafka_cluster.topic()
    with bare_consumer(kafka_cluster, group_id="waiting") as bare:
        listener = Waiting(bare)
        bare.subscribe([topic], listener=listener)
        wait_for("metadata", lambda: bare._cluster.request_update() and bare._cluster.partitions_for_topic(topic))
        wait_for("assigned", lambda: bare.poll(timeout_ms=20) or bare.assignment())
        listener.may_go = False
        other = kafka_cluster.member(topic, "waiting")
        polls = 0
        has_seen = threading.Event()

        def poll_on() -> None:
            nonlocal polls
            while not has_seen.is_set():
                bare.poll(timeout_ms=20)
                polls += 1

        polling = threading.Thread(target=poll_on)
        polling.start()
        wait_for("the listener waits", lambda: other.poll() or listener.is_waiting)
        polls_before = polls
        has_seen.wait(LONG_ENOUGH_S)
        polls_meanwhile = polls - polls_before
        has_seen.set()
        listener.may_go = True
        polling.join(10)
        assert polls_meanwhile == 0, "the library's poll returns while a listener waits"


def test_a_join_for_new_partitions_is_lost_with_the_poll_that_began_it(kafka_cluster: Cluster) -> None:
    """The group has assigned the partitions, and the member that is to hold them does not take them."""

    def grow(topic: str, consumer: Any, poll: Callable[[], object], assigned: Callable[[], int]) -> None:
        """Polls end while the consumer joins because its topic has grown."""
        joins = 0

        async def join_slowly() -> Any:
            nonlocal joins
            joined = await join()
            await consumer._net.sleep(2 * LONG_ENOUGH_S)
            joins += 1
            return joined

        wait_for("assigned", lambda: [poll(), assigned() == PARTITIONS][1])
        join, consumer._coordinator._do_join_and_sync_async = consumer._coordinator._do_join_and_sync_async, join_slowly
        kafka_cluster.admin.grow_topic(topic, PARTITIONS + 1)
        wait_for("joined again", lambda: [poll(), consumer._cluster.request_update(), joins][2])

    topic = kafka_cluster.topic()
    with bare_consumer(kafka_cluster, group_id="loses-a-join") as bare:
        bare.subscribe([topic])
        bare.partitions_for_topic(topic)
        grow(topic, bare, lambda: bare.poll(20), lambda: len(bare.assignment()))
        until = time.monotonic() + LONG_ENOUGH_S
        while time.monotonic() < until:
            bare.poll(20)
        assert len(bare.assignment()) == PARTITIONS, "the library takes what it was assigned"
    topic = kafka_cluster.topic()
    owner = kafka_cluster.member(topic)
    grow(topic, owner.consumer._consumer, owner.poll, lambda: len(owner.owned))  # type: ignore[attr-defined]  # ours
    owner.join(PARTITIONS + 1)


def test_an_answer_to_an_older_question_hides_topics(kafka_cluster: Cluster) -> None:
    """A group member that subscribes in that moment gets no partitions for five minutes."""
    topic = kafka_cluster.topic()

    def hide(consumer: Any) -> Any:
        """Metadata of a moment before the topic was asked for, arriving after."""
        cluster = consumer._cluster
        older = consumer._net.run(consumer._manager.send, cluster.metadata_request())
        wait_for("known", lambda: cluster.set_topics([topic]) and cluster.partitions_for_topic(topic))
        cluster.update_metadata(older)
        return cluster

    with bare_consumer(kafka_cluster) as bare:
        cluster = hide(bare)
        assert cluster.partitions_for_topic(topic) is None
        assert not cluster.need_update, "the library asks again"
    reader: Any = kafka_cluster.reader()
    cluster = hide(reader._consumer)
    wait_for("known again", lambda: cluster.partitions_for_topic(topic))


def test_a_partition_that_comes_back_keeps_its_old_position(kafka_cluster: Cluster) -> None:
    """Ours: test_a_partition_that_comes_back_starts_paused_at_its_committed_offset."""
    topic = kafka_cluster.topic()
    for partition in range(PARTITIONS):
        kafka_cluster.write(topic, 5, partition)
    with bare_consumer(kafka_cluster, group_id="comes-back") as bare:
        listener = Waiting(bare)
        bare.subscribe([topic], listener=listener)
        seen: list[Any] = []

        def poll() -> bool:
            for batch in bare.poll(timeout_ms=20).values():
                seen.extend(batch)
            return False

        # Sometimes it needs to be told, see test_an_answer_to_an_older_question_hides_topics.
        wait_for("metadata", lambda: bare._cluster.request_update() and bare._cluster.partitions_for_topic(topic))
        wait_for("all records", lambda: poll() or len(seen) == 5 * PARTITIONS)
        other = kafka_cluster.member(topic, "comes-back")
        wait_for("two each", lambda: other.poll() or poll() or len(bare.assignment()) == len(other.owned) == 2)
        positions = {bare.position(place) for place in bare.assignment()}
        assert positions == {5}, "the library starts a new assignment at the committed offset (none: 0)"


def test_end_offsets_leave_out_open_transactions(kafka_cluster: Cluster) -> None:
    """Ours: test_end_offsets_count_the_records_of_open_transactions."""
    topic = kafka_cluster.topic()
    transactions = kafka_cluster.transactional()
    transactions.send(topic, b"open", partition=0).get(10)
    with bare_consumer(kafka_cluster, isolation_level="read_committed") as bare:
        assert bare.end_offsets([they(topic)]) == {they(topic): 0}
    transactions.abort_transaction()


def test_the_future_of_an_asynchronous_commit_may_end_before_the_commit(kafka_cluster: Cluster) -> None:
    """When the coordinator has to be looked up, it is the look-up's. (Ours retries the commit itself.)"""
    topic = kafka_cluster.topic()
    with bare_consumer(kafka_cluster, group_id="asynchronous") as bare:
        bare.assign([they(topic)])
        bare._coordinator.coordinator_dead("it has moved")

        async def commit() -> Any:
            return await bare.commit_async({they(topic): OffsetAndMetadata(1, "", -1)})

        assert bare._net.run(commit) is not None, "the library's future is the commit's, which has no result"


def test_offsets_of_a_partition_without_a_known_leader_are_a_key_error(kafka_cluster: Cluster) -> None:
    known, unknown = kafka_cluster.topic(), kafka_cluster.topic()
    with bare_consumer(kafka_cluster) as bare:
        bare.assign([they(known)])
        wait_for("a position", lambda: bare.poll(timeout_ms=20) or bare.position(they(known)) == 0)
        with pytest.raises(KeyError):
            bare.end_offsets([they(known), they(unknown)])
    reader = kafka_cluster.reader()
    reader.assign({TopicPartition(known, 0): None})
    wait_for("a position", lambda: reader.poll(A_MOMENT) or reader.position(TopicPartition(known, 0)) == 0)
    asked = [TopicPartition(known, 0), TopicPartition(unknown, 0)]
    assert reader.end_offsets(asked) == dict.fromkeys(asked, 0)
