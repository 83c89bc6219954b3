"""The retry path: a share of distinct keys fails once, and is retried at once. From the first handler call to the last.

What is counted is handled records a second, all of them: nothing may be locked, and nothing lost, at the end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from kafetrain import ConstantBackoff, KafkaConsumer, Record, get_retry_attempt
from kafetrain.testing import Broker
from tests.benchmarks.filling import fill
from tests.benchmarks.ours import settings_for
from tests.benchmarks.report import Block, Scale, spread
from tests.waiting import wait_for

__all__ = ["FailsOnce", "Workload", "blocks", "once"]

PARTITIONS = 4


@dataclass(frozen=True)
class Workload:
    """Distinct keys, and the share of them whose record fails once."""

    keys: int
    share: float
    delivery: str = "at-least-once"


WORKLOADS = (Workload(20_000, 0.01), Workload(20_000, 0.1), Workload(2_000, 1.0), Workload(2_000, 1.0, "transactional"))


def blocks(broker: Broker, scale: Scale) -> Iterator[Block]:
    rows: list[tuple[str, ...]] = []
    data: dict[str, list[float]] = {}
    for client in scale.clients:
        for workload in WORKLOADS:
            keys, name = scale.of(workload.keys), f"{workload.share:.0%}"
            rates = [once(broker, keys, workload, client) for _ in range(scale.runs)]
            rows.append((client, workload.delivery, f"{keys:,}", name, *spread(rates, ",.0f")))
            data[f"{client}, {workload.delivery}: {keys} keys, {name} fail"] = rates
    yield Block(
        "Records that fail",
        f"Distinct keys in {PARTITIONS} partitions, one record each of 100 B, a share of which fails once and is "
        f"retried after 1 ms; all records, a second, from the first handler call to the last success.",
        ("client", "delivery", "keys", "fail once", "min", "median", "max"),
        rows,
        data,
    )


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


def once(broker: Broker, keys: int, workload: Workload, client: str, handler: FailsOnce | None = None) -> float:
    """Records a second. `handler`: another one than it would make."""
    topic = broker.create_unique_topic(PARTITIONS, prefix="retries")
    fill(broker, topic, keys, 100, PARTITIONS)
    handler = handler or FailsOnce(keys, workload.share)
    backoff = ConstantBackoff(timedelta(milliseconds=1))
    settings = settings_for(broker, client, backoff=backoff, delivery=workload.delivery)
    with KafkaConsumer.resilient(settings, topic, handler) as consumer:
        while not handler.done.wait(1.0):
            consumer.check()
        wait_for("no key is locked", lambda: not list(consumer.tracker.locks(topic)), check=consumer.check)
    return keys / (handler.last - handler.first)
