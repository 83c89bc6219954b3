"""Retry lateness: when a retry starts, minus when it was due, while keys with short and long backoffs are mixed.

Every record fails once. Half of the keys back off for a tenth of a second, the others for ten, in one retry partition:
a design in which one waits for the other shows here as seconds.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from kafka import KafkaProducer

from kafetrain import KafkaConsumer, Record, RetriableError, Settings, get_retry_attempt
from kafetrain.record import RetryHeader, header
from kafetrain.testing import Broker

SHORT, LONG = timedelta(milliseconds=100), timedelta(seconds=10)


@dataclass(frozen=True)
class Lateness:
    """Milliseconds, sorted."""

    short: list[float]
    long: list[float]


def percentile(values: Sequence[float], share: float) -> float:
    """Of sorted values, the one that `share` of them do not exceed."""
    return values[min(len(values) - 1, int(share * len(values)))]


def run(broker: Broker, keys: int) -> Lateness:
    topic = broker.create_unique_topic(1, prefix="lateness")
    late: dict[str, list[float]] = {"short": [], "long": []}
    mutex, done = threading.Lock(), threading.Event()

    def handler(record: Record) -> None:
        kind = "short" if record.offset % 2 == 0 else "long"
        if get_retry_attempt(record) == 0:
            raise RetriableError("the first time fails", delay=SHORT if kind == "short" else LONG)
        due = int(header(record, RetryHeader.DUE) or 0)
        with mutex:
            late[kind].append(time.time_ns() / 1e6 - due)
            if sum(map(len, late.values())) == keys:
                done.set()

    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers)
    settings = Settings(bootstrap_servers=broker.bootstrap_servers, group_id=f"kt-{uuid.uuid4().hex[:8]}")
    with KafkaConsumer.resilient(settings, topic, handler) as consumer:
        for i in range(keys):
            producer.send(topic, key=b"key-%d" % i, value=b"x" * 100)
            if i % 10 == 9:
                producer.flush()
                time.sleep(0.05)  # spread the due times, or the figure is that of one burst
        producer.flush()
        while not done.wait(1.0):
            consumer.check()
    producer.close()
    return Lateness(sorted(late["short"]), sorted(late["long"]))
