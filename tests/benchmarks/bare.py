"""What kafetrain is measured against: a loop of the client alone, as one would write it, and a read of a partition."""

from __future__ import annotations

import time
import uuid

from confluent_kafka import Consumer, KafkaError
from confluent_kafka import TopicPartition as ConfluentPartition
from kafka import KafkaConsumer, TopicPartition
from kafka.structs import OffsetAndMetadata

from kafetrain.testing import Broker
from tests.benchmarks.counter import Counter

__all__ = ["read_all", "run_bare"]

BATCH = 500


def run_bare(broker: Broker, topic: str, records: int, client: str) -> Counter:
    """Poll batches, call the handler for each record, commit each second."""
    return (_with_confluent if client == "confluent" else _with_kafka_python)(broker, topic, records)


def _with_kafka_python(broker: Broker, topic: str, records: int) -> Counter:
    counter = Counter(records)
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=broker.bootstrap_servers,
        group_id=f"bare-{uuid.uuid4().hex[:8]}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    consumer.partitions_for_topic(topic)
    try:
        next_commit = time.monotonic() + 1.0
        while not counter.done.is_set():
            for place, batch in consumer.poll(timeout_ms=100, max_records=BATCH).items():
                for record in batch:
                    counter(record)
                if time.monotonic() >= next_commit:
                    consumer.commit({TopicPartition(*place): OffsetAndMetadata(batch[-1].offset + 1, "", -1)})
                    next_commit = time.monotonic() + 1.0
    finally:
        consumer.close()
    return counter


def _with_confluent(broker: Broker, topic: str, records: int) -> Counter:
    counter = Counter(records)
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap_servers,
            "group.id": f"bare-{uuid.uuid4().hex[:8]}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": 10,  # with the library's second it would stand still after each 100,000 records
        }
    )
    consumer.subscribe([topic])
    try:
        next_commit = time.monotonic() + 1.0
        while not counter.done.is_set():
            messages = consumer.consume(BATCH, 0.1)
            for message in messages:
                if message.error():
                    raise RuntimeError(message.error().str())
                counter(message)
            if messages and time.monotonic() >= next_commit:
                consumer.commit(asynchronous=False)
                next_commit = time.monotonic() + 1.0
    finally:
        consumer.close()
    return counter


def read_all(broker: Broker, topic: str, client: str) -> float:
    """Seconds to read partition 0 from its beginning to its end, and do nothing with it."""
    return (_read_with_confluent if client == "confluent" else _read_with_kafka_python)(broker, topic)


def _read_with_kafka_python(broker: Broker, topic: str) -> float:
    begin = time.perf_counter()
    consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap_servers, enable_auto_commit=False)
    place = TopicPartition(topic, 0)
    consumer.assign([place])
    consumer.seek_to_beginning(place)
    end = consumer.end_offsets([place])[place]
    while consumer.position(place) < end:
        for batch in consumer.poll(timeout_ms=100, max_records=BATCH).values():
            for record in batch:
                record.value  # noqa: B018  # as a reader would
    took = time.perf_counter() - begin
    consumer.close()
    return took


def _read_with_confluent(broker: Broker, topic: str) -> float:
    begin = time.perf_counter()
    consumer = Consumer(
        {"bootstrap.servers": broker.bootstrap_servers, "group.id": "read-all", "enable.partition.eof": True}
    )
    consumer.assign([ConfluentPartition(topic, 0, 0)])
    at_end = False
    while not at_end:
        for message in consumer.consume(BATCH, 0.1):
            if (error := message.error()) is None:
                message.value()
            elif error.code() == KafkaError._PARTITION_EOF:
                at_end = True
            else:
                raise RuntimeError(error.str())
    took = time.perf_counter() - begin
    consumer.close()
    return took
