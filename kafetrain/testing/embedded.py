"""librdkafka's mock cluster as a broker: in this process, up in a tenth of a second, nothing to install but a wheel.

Enough to produce, fetch, join groups and commit. It has no compaction, no transactions, no fencing, no topic
settings, and nothing outlives it; its topics create themselves, always with the same number of partitions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kafetrain.testing.base import Broker, BrokerNotReadyError, UnsupportedByBrokerError

__all__ = ["EmbeddedBroker"]

PARTITIONS = 4  # of each topic: librdkafka's default, and its clients have no setting for it


class EmbeddedBroker(Broker):
    """A mock cluster of `brokers` nodes on loopback, running when the constructor returns.

    It lives inside a librdkafka client, so it ends with `close()` or with the process.
    Clients of kafka-python need `client_options`: they cannot read its answer to the version question.
    Raises `ImportError` without confluent-kafka, `BrokerNotReadyError` when the mock does not answer.
    """

    def __init__(self, brokers: int = 1) -> None:
        try:
            from confluent_kafka import KafkaException, Producer
        except ImportError as error:
            raise ImportError("confluent-kafka is missing: pip install confluent-kafka") from error
        # The address is never asked: with a mock, librdkafka replaces it. Level 3 keeps its notice of that out
        # of stderr.
        self._owner: Any = Producer({"bootstrap.servers": "x:1", "test.mock.num.brokers": brokers, "log_level": 3})
        try:
            nodes = self._owner.list_topics(timeout=10).brokers.values()
        except KafkaException as error:
            raise BrokerNotReadyError(f"librdkafka's mock cluster does not answer: {error}") from error
        super().__init__(",".join(f"{node.host}:{node.port}" for node in nodes), "embedded", {"api_version": (2, 3)})

    def create_topic(self, name: str, partitions: int = PARTITIONS, configs: Mapping[str, str] | None = None) -> None:
        """Make the mock create the topic, as it does for every name that it is asked about.

        Raises `UnsupportedByBrokerError` for another number of partitions than four, or any setting.
        """
        if partitions != PARTITIONS or configs:
            raise UnsupportedByBrokerError(
                f"the mock broker gives each topic {PARTITIONS} partitions and no settings; asked for "
                f"{partitions} partitions and {dict(configs or {})}"
            )
        self._running().list_topics(name, timeout=10)

    def delete_topic(self, name: str) -> None:
        raise self._unsupported("delete_topic")

    def close(self) -> None:
        self._owner = None

    def _running(self) -> Any:
        if self._owner is None:
            raise BrokerNotReadyError("the embedded broker was closed")
        return self._owner
