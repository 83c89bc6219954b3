"""Writes what a benchmark reads, by librdkafka: quickly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from confluent_kafka import Producer

from kafetrain.testing import Broker

__all__ = ["Written", "fill", "write"]

QUEUE = 200_000


class Written(NamedTuple):
    """A record to write. `value`: None for a tombstone."""

    partition: int
    key: bytes
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


def fill(broker: Broker, topic: str, records: int, size_bytes: int, partitions: int, keys: int | None = None) -> None:
    """Records in turn for each partition; `keys` of them in turn as well, None: a key for each record."""
    value = b"x" * size_bytes
    write(
        broker,
        topic,
        (Written(i % partitions, b"%08d" % (i if keys is None else i % keys), value) for i in range(records)),
    )


def write(broker: Broker, topic: str, records: Iterable[Written]) -> None:
    """Returns when all are in the topic."""
    producer = Producer(
        {"bootstrap.servers": broker.bootstrap_servers, "linger.ms": 20, "queue.buffering.max.messages": QUEUE}
    )
    for record in records:
        while True:
            try:
                producer.produce(topic, record.value, record.key, record.partition, headers=list(record.headers))
            except BufferError:
                producer.poll(0.1)
            else:
                break
        producer.poll(0)
    left = producer.flush(120)
    if left:
        raise RuntimeError(f"{left} records were not written to {topic}")
