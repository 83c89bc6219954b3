"""kafka-python as it is, without our workarounds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaConsumer, KafkaProducer
from kafka import TopicPartition as KafkaTopicPartition

from kafetrain.client.kafka_python_workarounds import abandon
from tests.contract.conftest import Cluster

LONG_ENOUGH_S = 0.5  # for what does not happen


@contextmanager
def bare_consumer(cluster: Cluster, **options: Any) -> Iterator[Any]:
    consumer = KafkaConsumer(
        bootstrap_servers=cluster.servers,
        **{"enable_auto_commit": False, "auto_offset_reset": "earliest", "heartbeat_interval_ms": 100, **options},
    )
    try:
        yield consumer
    finally:
        consumer.close(timeout_ms=2_000)


@contextmanager
def bare_producer(cluster: Cluster, **options: Any) -> Iterator[Any]:
    producer = KafkaProducer(bootstrap_servers=cluster.servers, **options)
    try:
        yield producer
    finally:
        abandon(producer, 5)


def they(topic: str, partition: int = 0) -> Any:
    return KafkaTopicPartition(topic, partition)
