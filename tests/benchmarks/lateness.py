"""Retry lateness: when a retry starts, minus when it was due, while keys with short and long backoffs are mixed.

Every record fails once. Half of the keys back off for a tenth of a second, the others for ten, in one retry partition:
a design in which one waits for the other shows here as seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta

from confluent_kafka import Producer

from kafetrain import KafkaConsumer, Record, RetriableError, get_retry_attempt
from kafetrain.record import RetryHeader, header
from kafetrain.testing import Broker
from tests.benchmarks.ours import settings_for
from tests.benchmarks.report import Block, Scale, percentile
from tests.waiting import wait_for

__all__ = ["blocks", "late_ms", "lateness_row", "produce_slowly"]

SHORT, LONG = timedelta(milliseconds=100), timedelta(seconds=10)
KEYS = 200
WARM = b"warm"


def blocks(broker: Broker, scale: Scale) -> Iterator[Block]:
    rows: list[tuple[str, ...]] = []
    data: dict[str, list[float]] = {}
    for client in scale.clients:
        found = run(broker, scale.of(KEYS), client)
        for name, values in found.items():
            rows.append((client, *lateness_row(name, values)))
            data[f"{client}: {name}"] = values
    yield Block(
        "Lateness of retries",
        "Each record fails once; half of the keys back off for 0.1 s, the others for 10 s, in one partition. When a "
        "retry starts minus when it was due, in ms.",
        ("client", "backoff", "retries", "earliest", "p50", "p99", "latest"),
        rows,
        data,
    )


def lateness_row(name: str, values: Sequence[float]) -> tuple[str, ...]:
    """Of sorted values in ms."""
    figures = (values[0], percentile(values, 0.5), percentile(values, 0.99), values[-1])
    return name, str(len(values)), *(f"{figure:.1f}" for figure in figures)


def run(broker: Broker, keys: int, client: str) -> dict[str, list[float]]:
    """Milliseconds, sorted, by backoff."""
    topic = broker.create_unique_topic(1, prefix="lateness")
    late: dict[str, list[float]] = {"0.1 s": [], "10 s": []}
    mutex, warm, done = threading.Lock(), threading.Event(), threading.Event()

    def handler(record: Record) -> None:
        kind, delay = ("0.1 s", SHORT) if record.offset % 2 == 0 else ("10 s", LONG)
        if get_retry_attempt(record) == 0:
            raise RetriableError("the first time fails", delay=delay)
        if record.key == WARM:
            warm.set()
            return
        with mutex:
            late[kind].append(late_ms(record))
            if sum(map(len, late.values())) == keys:
                done.set()

    with KafkaConsumer.resilient(settings_for(broker, client), topic, handler) as consumer:
        produce_slowly(broker.bootstrap_servers, topic, [WARM])
        wait_for("both sides work", warm.is_set, check=consumer.check)
        produce_slowly(broker.bootstrap_servers, topic, [b"key-%d" % i for i in range(keys)])
        while not done.wait(1.0):
            consumer.check()
    return {kind: sorted(values) for kind, values in late.items()}


def late_ms(record: Record) -> float:
    """Of a retry that starts now."""
    return time.time_ns() / 1e6 - int(header(record, RetryHeader.DUE) or 0)


def produce_slowly(servers: str, topic: str, keys: Sequence[bytes]) -> None:
    """Ten records, a pause, and so on: the due times are spread, or the figure is that of one burst."""
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 0})
    for at, key in enumerate(keys):
        producer.produce(topic, b"x" * 100, key, 0)
        if at % 10 == 9:
            producer.flush(30)
            time.sleep(0.05)
    producer.flush(30)
