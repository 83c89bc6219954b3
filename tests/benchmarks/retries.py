"""The retry path: a share of distinct keys fails once, and is retried at once. From the first handler call to the last.

What is counted is handled records a second, all of them: nothing may be locked, and nothing lost, at the end.
"""

from __future__ import annotations

import statistics
import threading
import time
import uuid
from dataclasses import dataclass
from datetime import timedelta

from kafka import KafkaProducer

from kafetrain import ConstantBackoff, KafkaConsumer, Record, Settings, get_retry_attempt
from kafetrain.testing import Broker

PARTITIONS = 4
WORKLOADS = ((20_000, 0.01), (20_000, 0.1), (2_000, 1.0))
"""Distinct keys, and the share of them whose record fails once."""


@dataclass(frozen=True)
class Retries:
    """Records a second, of each run."""

    keys: int
    share: float
    rates: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.rates)


class FailsOnce:
    """A handler for which every n-th record fails the first time."""

    def __init__(self, records: int, share: float) -> None:
        self._expected, self._every = records, round(1 / share)
        self._mutex = threading.Lock()
        self._succeeded = 0
        self.first = self.last = 0.0
        self.done = threading.Event()

    def __call__(self, record: Record) -> None:
        if self.first == 0.0:
            self.first = time.perf_counter()
        if (record.offset * PARTITIONS + record.partition) % self._every == 0 and get_retry_attempt(record) == 0:
            raise ValueError("the first time fails")
        with self._mutex:
            self._succeeded += 1
            if self._succeeded == self._expected:
                self.last = time.perf_counter()
                self.done.set()


def run(broker: Broker, runs: int) -> list[Retries]:
    return [Retries(keys, share, [once(broker, keys, share) for _ in range(runs)]) for keys, share in WORKLOADS]


def once(broker: Broker, keys: int, share: float) -> float:
    topic = broker.create_unique_topic(PARTITIONS, prefix="retries")
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, linger_ms=20, batch_size=1 << 18)
    for i in range(keys):
        producer.send(topic, key=b"%08d" % i, value=b"x" * 100, partition=i % PARTITIONS)
    producer.close()
    handler = FailsOnce(keys, share)
    settings = Settings(
        bootstrap_servers=broker.bootstrap_servers,
        group_id=f"kt-{uuid.uuid4().hex[:8]}",
        backoff=ConstantBackoff(timedelta(milliseconds=1)),
    )
    with KafkaConsumer.resilient(settings, topic, handler) as consumer:
        while not handler.done.wait(1.0):
            consumer.check()
    return keys / (handler.last - handler.first)
