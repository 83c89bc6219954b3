"""What the bare library's producers do wrong, and that ours do not.

A test whose first half fails means good news: the library is mended, and its workaround can go.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from kafka import errors as kafka_errors

from kafetrain.client import open_records
from kafetrain.client.kafka_python_producer import KafkaPythonProducer
from kafetrain.client.ports import ClientError, OutgoingRecord
from tests.contract.bare_kafka_python import LONG_ENOUGH_S, bare_consumer, bare_producer, they
from tests.contract.conftest import PARTITIONS, Cluster, frozen


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
    monkeypatch.setattr(open_records, "MAX_RECORDS", 3)
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
