"""What the bare library does wrong, and that our clients do not.

A test whose first half fails means good news: the library is mended, and its workaround can go.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka import TopicPartition as KafkaTopicPartition
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.future import Future as KafkaFuture
from kafka.net.transport import KafkaTCPTransport
from kafka.protocol.metadata import CoordinatorType
from kafka.record.default_records import DefaultRecordBatch
from kafka.structs import OffsetAndMetadata

from kafetrain.client import kafka_python_producer
from kafetrain.client.kafka_python import KafkaPythonClient
from kafetrain.client.kafka_python_producer import KafkaPythonProducer
from kafetrain.client.kafka_python_workarounds import abandon, deliver_what_came_before_the_end
from kafetrain.client.ports import ClientError, Committed, OutgoingRecord
from kafetrain.record import TopicPartition
from kafetrain.settings import Settings
from kafetrain.testing import Broker
from tests.contract.conftest import A_MOMENT, PARTITIONS, Cluster, frozen
from tests.waiting import wait_for

LONG_ENOUGH_S = 0.5  # for what does not happen


@contextmanager
def bare_consumer(cluster: Cluster, **options: Any) -> Iterator[Any]:
    consumer = KafkaConsumer(
        bootstrap_servers=cluster.servers,
        **{"enable_auto_commit": False, "auto_offset_reset": "earliest", "heartbeat_interval_ms": 100, **options},
    )
    try:
        yield consumer
    finally:
        consumer.close(timeout_ms=2_000)


@contextmanager
def bare_producer(cluster: Cluster, **options: Any) -> Iterator[Any]:
    producer = KafkaProducer(bootstrap_servers=cluster.servers, **options)
    try:
        yield producer
    finally:
        abandon(producer, 5)


def they(topic: str, partition: int = 0) -> Any:
    return KafkaTopicPartition(topic, partition)


# Consumers


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


# Producers


def test_one_rejected_record_ends_a_producer(kafka_cluster: Cluster) -> None:
    """Ours: test_a_record_that_is_too_large_fails_alone."""
    small, other = kafka_cluster.topic({"max.message.bytes": "2000"}), kafka_cluster.topic()
    with bare_producer(kafka_cluster, max_request_size=1 << 20) as bare:
        bare.send(other, b"fine", partition=0).get(10)
        with pytest.raises(kafka_errors.MessageSizeTooLargeError):
            bare.send(small, bytes(5_000), partition=0).get(10)
        with pytest.raises(kafka_errors.MessageSizeTooLargeError):
            bare.send(other, b"fine", partition=0).get(10)


def bare_producer_gets_stuck(cluster: Cluster, topic: str, options: dict[str, Any]) -> bool:
    """Does a bare producer neither send nor expire what comes behind a record that was sent and expired?"""
    with bare_producer(cluster, **options) as bare:
        bare.send(topic, b"before", partition=0).get(10)
        with frozen(cluster.broker):
            expires = bare.send(topic, b"expires", partition=0)
            with pytest.raises(kafka_errors.KafkaTimeoutError, match="Expiring"):
                expires.get(10)
        try:
            bare.send(topic, b"behind", partition=0).get(600 / 1000 + LONG_ENOUGH_S)
        except kafka_errors.KafkaTimeoutError as error:
            return "Timeout after waiting" in str(error)
        return False


def test_a_producer_is_stuck_after_a_record_expired_that_was_sent(kafka_cluster: Cluster) -> None:
    topic = kafka_cluster.topic()
    options: dict[str, Any] = {"delivery_timeout_ms": 600, "request_timeout_ms": 200}
    # On a busy machine the record may expire before it was sent, which does no harm.
    assert any(bare_producer_gets_stuck(kafka_cluster, topic, options) for _ in range(3))

    producer = kafka_cluster.client(**options).producer()
    kafka_cluster.later(lambda: producer.close(timedelta(seconds=1)))
    producer.send(OutgoingRecord(topic, 1, b"k", b"before")).result(10)
    with frozen(kafka_cluster.broker):
        expired = producer.send(OutgoingRecord(topic, 1, b"k", b"expires")).exception(10)
    assert isinstance(expired, ClientError)
    assert expired.retriable
    assert producer.send(OutgoingRecord(topic, 1, b"k", b"behind")).result(10) > 0


def is_appended_though_it_expired(cluster: Cluster, producer: Any, send: Callable[[str, bytes], Any]) -> bool:
    """Of a record that is taken to be sent when its delivery timeout is over, as after a process was frozen."""
    topic = cluster.topic()
    send(topic, b"before").result(10)
    options = producer._accumulator.config
    timeout_ms, options["delivery_timeout_ms"] = options["delivery_timeout_ms"], 0
    expired = send(topic, b"expired")
    with pytest.raises(Exception, match="Expiring"):
        expired.result(10)
    options["delivery_timeout_ms"] = timeout_ms
    send(topic, b"behind").result(10)  # the sequence numbers are right
    with bare_consumer(cluster) as consumer:
        consumer.assign([they(topic)])
        end = consumer.end_offsets([they(topic)])[they(topic)]
    return bool(end == 3)


class AsFuture:
    """A future of kafka-python with the method of ours."""

    def __init__(self, future: Any) -> None:
        self.result = future.get


def test_a_record_that_has_expired_is_sent_all_the_same(kafka_cluster: Cluster) -> None:
    with bare_producer(kafka_cluster) as bare:
        assert is_appended_though_it_expired(
            kafka_cluster, bare, lambda topic, value: AsFuture(bare.send(topic, value, partition=0))
        )

    ours = kafka_cluster.client().producer()
    kafka_cluster.later(lambda: ours.close(timedelta(seconds=1)))
    assert isinstance(ours, KafkaPythonProducer)
    assert not is_appended_though_it_expired(
        kafka_cluster, ours._producer, lambda topic, value: ours.send(OutgoingRecord(topic, 0, None, value, [], None))
    )


def test_closing_a_producer_that_cannot_flush_raises_and_leaves_its_thread(kafka_cluster: Cluster) -> None:
    topic = kafka_cluster.topic()
    producer = kafka_cluster.client().producer()
    with bare_producer(kafka_cluster) as bare:
        bare.send(topic, b"before", partition=0).get(10)
        producer.send(OutgoingRecord(topic, 0, b"k", b"before")).result(10)
        with frozen(kafka_cluster.broker):
            bare.send(topic, b"waits", partition=0)
            with pytest.raises(kafka_errors.KafkaTimeoutError):
                bare.close(timeout=0.1)
            assert bare._sender.is_alive()

            waits = producer.send(OutgoingRecord(topic, 0, b"k", b"waits"))
            producer.flush(timedelta(milliseconds=50))
            assert not waits.done()
            producer.close(timedelta(milliseconds=50))
            error = waits.exception(0)
            assert isinstance(error, ClientError)
            assert error.retriable


def test_a_producer_does_not_notice_that_a_topic_has_grown(kafka_cluster: Cluster) -> None:
    """Ours: test_a_partition_that_a_topic_has_grown_can_be_written_and_read_at_once."""
    topic = kafka_cluster.topic()
    with bare_producer(kafka_cluster) as bare:
        bare.send(topic, b"v", partition=0).get(10)
        kafka_cluster.admin.grow_topic(topic, PARTITIONS + 1)
        with pytest.raises(ValueError, match="Unrecognized partition"):
            bare.send(topic, b"v", partition=PARTITIONS)


def test_a_producer_takes_more_than_it_can_send(kafka_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = kafka_cluster.topic()
    monkeypatch.setattr(kafka_python_producer, "MAX_OPEN_RECORDS", 3)
    producer = kafka_cluster.client(max_block_ms=200).producer()
    kafka_cluster.later(lambda: producer.close(timedelta(0)))
    with bare_producer(kafka_cluster, max_block_ms=200) as bare:
        bare.send(topic, b"before", partition=0).get(10)
        producer.send(OutgoingRecord(topic, 0, b"k", b"before")).result(10)
        with frozen(kafka_cluster.broker):
            for _ in range(2_000):  # each would wait for room, and fail after max_block_ms
                bare.send(topic, bytes(1_000), partition=0)

            sent = [producer.send(OutgoingRecord(topic, 0, b"k", b"waits")) for _ in range(4)]
            assert [future.done() for future in sent] == [False, False, False, True]
            error = sent[3].exception(0)
            assert isinstance(error, ClientError)
            assert error.retriable


# Admin clients


def test_settings_that_a_broker_refuses_to_tell_are_empty(kafka_cluster: Cluster) -> None:
    """Ours: test_settings_that_the_broker_does_not_tell_are_an_error."""
    with KafkaAdminClient(bootstrap_servers=kafka_cluster.servers) as bare:
        assert bare.describe_configs([ConfigResource("topic", "missing-topic")], config_filter="all") == {
            "topic": {"missing-topic": {}}
        }


def test_an_admin_client_never_forgets_a_coordinator(kafka_cluster: Cluster) -> None:
    place = TopicPartition(kafka_cluster.topic(), 0)
    group = f"group-{place.topic}"
    gone = 99  # a broker that the cluster no longer has

    def forget_it_moved(admin: Any) -> None:
        admin._manager.cluster._coordinators[(CoordinatorType.GROUP, group)] = gone

    with KafkaAdminClient(bootstrap_servers=kafka_cluster.servers) as bare:
        forget_it_moved(bare)
        for _ in range(2):
            with pytest.raises(kafka_errors.KafkaError):
                bare.list_group_offsets({group: [they(*place)]})

    admin: Any = kafka_cluster.admin
    admin.set_committed(group, {place: Committed(1)})
    forget_it_moved(admin._admin)
    assert admin.committed(group, [place]) == {place: Committed(1)}


# Connecting


def test_a_password_is_logged(kafka_cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    options = {
        "bootstrap_servers": kafka_cluster.servers,
        "sasl_plain_username": "user",
        "sasl_plain_password": "hunter2",
    }
    with caplog.at_level(logging.DEBUG, "kafka.admin"):
        KafkaAdminClient(**options).close()
        assert "hunter2" in caplog.text
        caplog.clear()
        names = ("security_protocol", "sasl_mechanism", "sasl_username", "ssl_cafile", "ssl_certfile", "ssl_keyfile")
        settings = SimpleNamespace(
            bootstrap_servers=kafka_cluster.servers,
            client_options={"sasl_plain_password": "hunter2"},
            sasl_password=None,
            **dict.fromkeys(names),
        )
        with caplog.at_level(logging.DEBUG):
            KafkaPythonClient(settings).admin().close()
        assert "hunter2" not in caplog.text


def test_a_failed_start_leaves_a_thread(kafka_cluster: Cluster) -> None:
    """Ours: test_a_broker_that_does_not_answer_is_named_and_nothing_is_left_behind."""
    before = set(threading.enumerate())
    with pytest.raises(kafka_errors.KafkaTimeoutError):
        KafkaConsumer(bootstrap_servers="127.0.0.1:1", bootstrap_timeout_ms=100)
    left = [thread for thread in threading.enumerate() if thread not in before]
    assert left
    for thread in left:
        thread._target.__self__.close()  # type: ignore[attr-defined]  # nobody else knows its loop


def test_a_refused_login_is_told_as_a_timeout(kafka_cluster: Cluster) -> None:
    """Ours: test_a_refused_login_is_told_at_once_and_is_not_retriable."""
    with pytest.raises(kafka_errors.KafkaTimeoutError, match="Unable to bootstrap"):
        KafkaProducer(
            bootstrap_servers=kafka_cluster.servers,
            bootstrap_timeout_ms=300,
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="PLAIN",
            sasl_plain_username="user",
            sasl_plain_password="hunter2",
        )


def test_what_a_broker_says_before_it_hangs_up_is_dropped() -> None:
    """Such as the reason why it refuses a login."""

    def received(mend: Callable[[Any], None] | None) -> list[bytes]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.sendall(b"the reason")
        theirs.close()

        async def at_once(_: Any) -> None: ...

        net = SimpleNamespace(wait_read=at_once, unregister_event=lambda *_: None)
        seen: list[bytes] = []
        transport = KafkaTCPTransport(net, ours, host="broker")
        transport.set_protocol(
            SimpleNamespace(_sensors=None, data_received=seen.append, connection_lost=lambda _: None)
        )
        transport._read = True
        if mend is not None:
            mend(transport)
        with suppress(StopIteration):
            transport._read_from_sock().send(None)
        assert transport.is_closing()
        return seen

    assert received(None) == []
    assert received(deliver_what_came_before_the_end) == [b"the reason"]


def test_topics_are_created_although_that_was_forbidden(embedded_broker: Broker) -> None:
    """On the mock broker, which creates what it is asked to."""
    topic = "forbidden-topic"
    servers, options = embedded_broker.bootstrap_servers, embedded_broker.client_options
    settings = Settings(bootstrap_servers=servers, group_id="g", client_options={**options, "max_block_ms": 300})
    client = KafkaPythonClient(settings)
    admin, producer = client.admin(), client.producer()
    try:
        assert producer.send(OutgoingRecord(topic, 0, b"k", b"v")).exception(5) is not None
        assert admin.describe_topics([topic]) == {}
        bare = KafkaProducer(bootstrap_servers=servers, allow_auto_create_topics=False, **options)
        bare.send(topic, b"v", partition=0).get(10)
        bare.close()
        assert set(admin.describe_topics([topic])) == {topic}
    finally:
        producer.close(timedelta(seconds=1))
        admin.close()


# Faults that no broker shows on demand, so on a library that is played


class PlayedProducer:
    """As much of `KafkaProducer` as the port touches. Its records end when the test says so."""

    def __init__(self) -> None:
        self.sent: list[KafkaFuture] = []
        self.is_ready_without_id = False
        self.has_ended = False
        self.config = {"api_version": (4, 1)}
        self._transaction_manager = SimpleNamespace(
            has_fatal_error=lambda: self.is_ready_without_id,
            has_producer_id=lambda: True,
            classify_batch_error=None,
            _current_state=None,
        )
        self._sender = self

    def send(self, topic: str, **record: Any) -> KafkaFuture:
        if self.has_ended:
            raise kafka_errors.IllegalStateError("closed")
        self.sent.append(KafkaFuture())
        return self.sent[-1]

    def acknowledge(self, number: int, offset: int) -> None:
        self.sent[number].success(SimpleNamespace(offset=offset))

    # As its own sender
    def force_close(self) -> None:
        self.has_ended = True
        for future in self.sent:
            if not future.is_done:
                future.failure(kafka_errors.IllegalStateError("Producer is closed forcefully."))

    def _create_produce_requests(self, batches_by_node: object) -> None: ...

    def join(self, timeout: float) -> None: ...

    def is_alive(self) -> bool:
        return False

    def _unregister_cleanup(self) -> None: ...


@contextmanager
def played(delivery_timeout_s: float = 30.0) -> Iterator[tuple[KafkaPythonProducer, list[PlayedProducer]]]:
    built: list[PlayedProducer] = []

    def build(api_version: Any) -> PlayedProducer:
        built.append(PlayedProducer())
        return built[-1]

    producer = KafkaPythonProducer(build, delivery_timeout_s=delivery_timeout_s, max_block_s=5)
    try:
        yield producer, built
    finally:
        with suppress(ClientError):
            producer.close(timedelta(0))


RECORD = OutgoingRecord("t", 0, b"k", b"v")


def test_a_record_that_never_ends_is_ended_and_its_producer_replaced() -> None:
    with played(delivery_timeout_s=0.1) as (producer, built):
        first, second = producer.send(RECORD), producer.send(RECORD)
        for future in (first, second):
            error = future.exception(5)
            assert isinstance(error, ClientError)
            assert error.retriable
        assert built[0].has_ended
        third = producer.send(RECORD)
        built[1].acknowledge(0, 7)
        assert third.result(5) == 7


def test_a_producer_that_is_stuck_is_replaced_before_the_next_record() -> None:
    with played() as (producer, built):
        before = producer.send(RECORD)
        built[0].is_ready_without_id = True
        after = producer.send(RECORD)
        assert before.exception(0) is not None
        built[1].acknowledge(0, 0)
        assert after.result(5) == 0


def test_flushing_waits_for_what_was_sent_before_and_not_for_more() -> None:
    with played() as (producer, built):
        for _ in range(3):
            producer.send(RECORD)
        flushed = threading.Thread(target=producer.flush, args=(timedelta(seconds=20),))
        flushed.start()
        producer.send(RECORD)
        for number in (2, 0):
            built[0].acknowledge(number, number)
        assert flushed.is_alive()
        built[0].acknowledge(1, 1)
        wait_for("flushed", lambda: not flushed.is_alive())


def test_an_acknowledgement_without_an_offset_is_no_success() -> None:
    with played() as (producer, built):
        sent = producer.send(RECORD)
        built[0].acknowledge(0, -1)
        error = sent.exception(5)
        assert isinstance(error, ClientError)
        assert error.retriable


def test_a_record_of_any_size_goes_when_it_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_python_producer, "MAX_OPEN_BYTES", 10)
    with played() as (producer, built):
        sent = producer.send(OutgoingRecord("t", 0, b"k", bytes(100)))
        built[0].acknowledge(0, 0)
        assert sent.result(5) == 0
        big = threading.Thread(target=lambda: [producer.send(OutgoingRecord("t", 0, b"k", bytes(6))) for _ in "12"])
        big.start()
        wait_for("the first of two is sent", lambda: len(built[0].sent) == 2)
        big.join(0.05)
        assert len(built[0].sent) == 2, "the second waits for room"
        built[0].acknowledge(1, 1)
        big.join(5)
        assert len(built[0].sent) == 3
