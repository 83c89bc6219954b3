"""Many handler threads, the order of each key kept, nothing fails. From the first handler call to the last."""

from __future__ import annotations

import itertools
import random
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from kafetrain import KafkaConsumer, LoggingMiddleware, Record
from kafetrain.testing import Broker
from tests.benchmarks.filling import fill
from tests.benchmarks.ours import settings_for
from tests.benchmarks.report import Block, Scale, spread

__all__ = ["blocks"]


@dataclass(frozen=True)
class Workload:
    records: int
    keys: int
    threads: int
    partitions: int
    max_sleep_ms: float

    def __str__(self) -> str:
        work = f"0-{self.max_sleep_ms:g} ms of sleep" if self.max_sleep_ms else "no work"
        where = f"{self.partitions} partition" + ("s" if self.partitions > 1 else "")
        return f"{self.records:,} records, {self.keys:,} keys, {where}, {self.threads} threads, {work}"


WORKLOADS = (Workload(10_000, 10_000, 100, 1, 5.0), Workload(200_000, 1_000, 16, 4, 0.0))


def blocks(broker: Broker, scale: Scale) -> Iterator[Block]:
    rows: list[tuple[str, ...]] = []
    data: dict[str, list[float]] = {}
    for client in scale.clients:
        for full in WORKLOADS:
            workload = replace(full, records=scale.of(full.records))
            seconds = [once(broker, workload, client) for _ in range(scale.runs)]
            rate = f"{workload.records / statistics.median(seconds):,.0f}"
            rows.append((client, str(workload), *spread(seconds, ".2f"), rate))
            data[f"{client}: {workload}"] = seconds
    yield Block(
        "Many threads",
        "Records of 100 B, the order of each key kept, nothing fails; seconds from the first handler call to the last.",
        ("client", "workload", "min", "median", "max", "records/s (median)"),
        rows,
        data,
    )


def once(broker: Broker, workload: Workload, client: str) -> float:
    topic = broker.create_unique_topic(workload.partitions, prefix="concurrency")
    fill(broker, topic, workload.records, 100, workload.partitions, keys=workload.keys)
    handler = Ordered(workload)
    settings = settings_for(broker, client, concurrency=workload.threads)
    with KafkaConsumer.resilient(settings, topic, handler, middlewares=[LoggingMiddleware()]) as consumer:
        while not handler.done.wait(1.0):
            consumer.check()
    if handler.broken:
        raise AssertionError(f"{handler.broken} records ran before an earlier one of their key")
    return handler.last - handler.first


class Ordered:
    """A handler that sleeps, and notices when a key's records come out of order."""

    def __init__(self, workload: Workload) -> None:
        self._expected, self._longest_s = workload.records, workload.max_sleep_ms / 1000
        self._latest: dict[bytes, int] = {}
        self._numbers = itertools.count(1)
        self.broken = 0
        self.first = self.last = 0.0
        self.done = threading.Event()

    def __call__(self, record: Record) -> None:
        if self.first == 0.0:
            self.first = time.perf_counter()
        key = record.key or b""
        if self._latest.get(key, -1) >= record.offset:
            self.broken += 1
        self._latest[key] = record.offset
        if self._longest_s:
            time.sleep(random.uniform(0.0, self._longest_s))
        if next(self._numbers) == self._expected:
            self.last = time.perf_counter()
            self.done.set()
