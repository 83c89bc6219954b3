"""Broker settings that fit one small, short-lived node, whatever starts it.

Left alone, Kafka expects three nodes, waits for members that never come, and keeps house once in five minutes.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["CLUSTER_ID", "KAFKA_VERSION", "SETTINGS", "as_environment"]

KAFKA_VERSION = "4.1.0"
CLUSTER_ID = "a2FmZXRyYWluLXRlc3RzMQ"  # 16 bytes in Kafka's base64

SETTINGS: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    # One node: one copy, and few partitions, since each costs time to create and to load.
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "2",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "2",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    # Groups: no waiting for members that might join, sessions as short as a test of lost members needs.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.coordinator.append.linger.ms": "0",
    # A missing topic is a mistake in a test, and has to look like one.
    "auto.create.topics.enable": "false",
    "delete.topic.enable": "true",
    # Retention and compaction within a test's patience: both begin to look after a second, and again each second.
    "log.initial.task.delay.ms": "1000",
    "log.retention.check.interval.ms": "1000",
    "log.segment.delete.delay.ms": "1000",
    "log.cleaner.backoff.ms": "500",
    "log.cleaner.dedupe.buffer.size": str(8 << 20),  # bytes; 128 MiB by default, a quarter of the heap
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
}


def as_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Settings as Apache Kafka's container image reads them: `log.dirs` is `KAFKA_LOG_DIRS`."""
    return {f"KAFKA_{key.upper().replace('.', '_')}": value for key, value in settings.items()}
