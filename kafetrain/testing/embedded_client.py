"""The ports on the embedded broker, by its own protocol over its own sockets.

librdkafka's mock cluster produces, fetches and keeps groups as a broker does, so consumers and producers are the usual
ones. It has no CreateTopics, DescribeConfigs or DeleteRecords, so those three are answered here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from kafka import KafkaProducer

from kafetrain.client.kafka_python import ConnectionSettings, KafkaPythonClient
from kafetrain.client.kafka_python_errors import client_error
from kafetrain.client.ports import AdminPort, ClientError, Committed, TopicDescription, TopicSpec
from kafetrain.record import TopicPartition
from kafetrain.testing.embedded import PARTITIONS

__all__ = ["EmbeddedAdmin", "EmbeddedClient"]

# It cannot read the mock's answer to the question for its version, and must not ask.
API_VERSION = (2, 3)
# What is true of the mock: it keeps what it is given, as long as it lives.
CONFIGS = {"retention.bytes": "-1", "retention.ms": "-1"}
TIMEOUT_MS = 10_000


class EmbeddedClient(KafkaPythonClient):
    """A `Client` for an `EmbeddedBroker`, of this process or of another one: the address is enough."""

    def __init__(self, settings: ConnectionSettings) -> None:
        super().__init__(settings)
        self._options["api_version"] = API_VERSION

    def admin(self) -> AdminPort:
        return EmbeddedAdmin(super().admin(), ",".join(self._servers))


class EmbeddedAdmin:
    """An `AdminPort`. Topics have four partitions, whatever is asked for, and no settings; records stay."""

    def __init__(self, admin: AdminPort, bootstrap_servers: str) -> None:
        self._admin = admin
        self._bootstrap_servers = bootstrap_servers

    def describe_topics(self, topics: Collection[str]) -> Mapping[str, TopicDescription]:
        return self._admin.describe_topics(topics)

    def topic_configs(self, topics: Collection[str]) -> Mapping[str, Mapping[str, str]]:
        return dict.fromkeys(topics, CONFIGS)

    def create_topics(self, topics: Sequence[TopicSpec]) -> None:
        for topic in topics:
            if topic.partitions != PARTITIONS:
                raise ClientError(
                    f"creating {topic.name}: the embedded broker gives each topic {PARTITIONS} partitions, "
                    f"not {topic.partitions}"
                )
        try:
            # The mock creates every topic that a client with auto-creation asks for.
            producer: Any = KafkaProducer(
                bootstrap_servers=self._bootstrap_servers, api_version=API_VERSION, max_block_ms=TIMEOUT_MS
            )
            try:
                for topic in topics:
                    producer.partitions_for(topic.name)
            finally:
                producer.close()
        except Exception as error:
            raise client_error(error, f"creating {', '.join(topic.name for topic in topics)}") from error

    def grow_topic(self, topic: str, partitions: int) -> None:
        if partitions > PARTITIONS:
            raise ClientError(f"growing {topic}: the embedded broker gives each topic {PARTITIONS} partitions")

    def committed(self, group: str, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Committed]:
        return self._admin.committed(group, partitions)

    def set_committed(self, group: str, next_offsets: Mapping[TopicPartition, Committed]) -> None:
        self._admin.set_committed(group, next_offsets)

    def group_members(self, group: str) -> int:
        return self._admin.group_members(group)

    def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return self._admin.end_offsets(partitions)

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        raise ClientError("the embedded broker deletes no records")

    def close(self) -> None:
        self._admin.close()
