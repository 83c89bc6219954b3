"""What the layers rely on of a producer: order, futures, records that are too large; on every broker."""

from __future__ import annotations

import os
import time
from datetime import timedelta

import pytest

from kafetrain.client.ports import ClientError, OutgoingRecord, RecordTooLargeForClientError
from kafetrain.record import TopicPartition
from tests.contract.conftest import PARTITIONS, Cluster
from tests.contract.ports import MARGIN_S, read


def test_a_record_arrives_as_it_was_sent_and_its_future_has_its_offset(cluster: Cluster) -> None:
    place = TopicPartition(cluster.topic(), 2)
    headers = [("a", b"1"), ("a", b"2"), ("empty", b"")]
    cluster.write(place.topic, 1, partition=2)
    sent = cluster.producer.send(OutgoingRecord(*place, b"key", b"value", headers, timestamp_ms=1_700_000_000_000))
    tombstone = cluster.producer.send(OutgoingRecord(*place, b"key", None))
    assert (sent.result(10), tombstone.result(10)) == (1, 2)
    reader = cluster.reader()
    reader.assign({place: 1})
    first, second = read(reader, {place: 3})
    assert (first.topic, first.partition, first.offset) == (*place, 1)
    assert (first.key, first.value, list(first.headers)) == (b"key", b"value", headers)
    assert first.timestamp == 1_700_000_000_000
    assert (second.key, second.value) == (b"key", None)


def test_records_of_a_partition_are_appended_in_the_order_of_the_calls(cluster: Cluster) -> None:
    place = TopicPartition(cluster.topic(), 0)
    sent = [cluster.producer.send(OutgoingRecord(*place, b"k", b"%d" % number)) for number in range(2_000)]
    cluster.producer.flush(timedelta(seconds=20))
    assert [future.result(0) for future in sent] == list(range(2_000))


@pytest.mark.needs("configs")
def test_a_record_that_is_too_large_fails_alone(cluster: Cluster) -> None:
    small, other = cluster.topic({"max.message.bytes": "20000"}), cluster.topic()
    before = cluster.producer.send(OutgoingRecord(small, 0, b"k", b"fits"))
    large = cluster.producer.send(OutgoingRecord(small, 0, b"k", os.urandom(50_000)))
    behind = [cluster.producer.send(OutgoingRecord(topic, 0, b"k", b"fits")) for topic in (small, other, small)]
    assert isinstance(large.exception(10), RecordTooLargeForClientError)
    assert before.result(10) == 0
    assert [future.result(10) for future in behind] == [1, 0, 2]
    assert cluster.producer.send(OutgoingRecord(small, 0, b"k", b"later")).result(10) == 3


@pytest.mark.needs("configs")
def test_records_that_fit_one_by_one_are_all_appended_in_their_order(cluster: Cluster) -> None:
    """However a client puts them together, a topic may take less than that at a time."""
    small = cluster.topic({"max.message.bytes": "20000"})
    sent = [cluster.producer.send(OutgoingRecord(small, 0, b"%d" % n, os.urandom(1_000))) for n in range(300)]
    assert [future.result(30) for future in sent] == list(range(300))


def test_sending_to_a_missing_topic_or_partition_fails_within_its_bound(cluster: Cluster) -> None:
    producer = cluster.client(max_block_ms=300).producer()
    cluster.later(lambda: producer.close(timedelta(seconds=1)))
    for place in (TopicPartition("missing-topic", 0), TopicPartition(cluster.topic(), PARTITIONS)):
        began = time.monotonic()
        sent = producer.send(OutgoingRecord(*place, b"k", b"v"))
        assert time.monotonic() - began < 0.6 + MARGIN_S
        assert isinstance(sent.exception(0), ClientError)


def test_a_record_that_no_broker_could_take_fails_and_not_by_raising(cluster: Cluster) -> None:
    sent = cluster.producer.send(OutgoingRecord(cluster.topic(), 0, None, None))
    error = sent.exception(0)
    assert isinstance(error, ClientError)
    assert not error.retriable


def test_a_closed_producer_takes_nothing_more_and_its_records_have_ended(cluster: Cluster) -> None:
    topic = cluster.topic()
    producer = cluster.client().producer()
    sent = [producer.send(OutgoingRecord(topic, 0, b"k", b"v")) for _ in range(100)]
    producer.close(timedelta(seconds=10))
    assert all(future.done() and future.exception() is None for future in sent)
    assert "closed" in str(producer.send(OutgoingRecord(topic, 0, b"k", b"v")).exception(0))
    producer.close(timedelta(seconds=1))
