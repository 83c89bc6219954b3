"""The healthy path: nothing fails. Layer 3 with its middleware against a bare kafka-python loop, side by side.

Both read the same topic from its beginning, call a handler for each record and commit each second. What is timed is
from the first handler call to the last. Pairs are interleaved, and each gives one ratio: machines drift.
"""

from __future__ import annotations

import statistics
import threading
import time
import uuid
from dataclasses import dataclass

from kafka import KafkaConsumer as BareConsumer
from kafka import KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata

from kafetrain import KafkaConsumer, LoggingMiddleware, Record, Settings
from kafetrain.testing import Broker

PARTITIONS = 4


@dataclass(frozen=True)
class Healthy:
    """Records a second of each run, and the ratio of each pair."""

    records: int
    size_bytes: int
    bare: list[float]
    kafetrain: list[float]

    @property
    def ratios(self) -> list[float]:
        return [ours / theirs for ours, theirs in zip(self.kafetrain, self.bare, strict=True)]

    @property
    def median_ratio(self) -> float:
        return statistics.median(self.ratios)


class Counter:
    """A handler that does nothing but know when it began and ended."""

    def __init__(self, expected: int) -> None:
        self._expected, self._count = expected, 0
        self.first = self.last = 0.0
        self.done = threading.Event()

    def __call__(self, record: Record) -> None:
        if self._count == 0:
            self.first = time.perf_counter()
        self._count += 1
        if self._count == self._expected:
            self.last = time.perf_counter()
            self.done.set()

    @property
    def rate(self) -> float:
        return self._expected / (self.last - self.first)


def run(broker: Broker, records: int, size_bytes: int, pairs: int) -> Healthy:
    topic = broker.create_unique_topic(PARTITIONS, prefix="healthy")
    fill(broker, topic, records, size_bytes)
    bare: list[float] = []
    ours: list[float] = []
    run_bare(broker, topic, records)  # warm both sides and the page cache
    run_kafetrain(broker, topic, records)
    for pair in range(pairs):
        steps = [(bare, run_bare), (ours, run_kafetrain)]
        for rates, step in steps if pair % 2 == 0 else reversed(steps):
            rates.append(step(broker, topic, records))
    return Healthy(records, size_bytes, bare, ours)


def fill(broker: Broker, topic: str, records: int, size_bytes: int) -> None:
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, linger_ms=20, batch_size=1 << 18)
    value = b"x" * size_bytes
    for i in range(records):
        producer.send(topic, value=value, key=b"%08d" % i, partition=i % PARTITIONS)
        if i % 20_000 == 0:
            producer.flush()
    producer.flush()
    producer.close()


def run_bare(broker: Broker, topic: str, records: int) -> float:
    counter = Counter(records)
    consumer = BareConsumer(
        topic,
        bootstrap_servers=broker.bootstrap_servers,
        group_id=f"bare-{uuid.uuid4().hex[:8]}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    try:
        next_commit = time.monotonic() + 1.0
        while not counter.done.is_set():
            for place, batch in consumer.poll(timeout_ms=100, max_records=500).items():
                for record in batch:
                    counter(record)
                offset = OffsetAndMetadata(batch[-1].offset + 1, "", -1)
                if time.monotonic() >= next_commit:
                    consumer.commit({TopicPartition(*place): offset})
                    next_commit = time.monotonic() + 1.0
    finally:
        consumer.close()
    return counter.rate


def run_kafetrain(broker: Broker, topic: str, records: int) -> float:
    counter = Counter(records)
    settings = Settings(bootstrap_servers=broker.bootstrap_servers, group_id=f"kt-{uuid.uuid4().hex[:8]}")
    with KafkaConsumer.resilient(settings, topic, counter, middlewares=[LoggingMiddleware()]) as consumer:
        while not counter.done.wait(1.0):
            consumer.check()
    return counter.rate
