"""The admin port on kafka-python's `KafkaAdminClient`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from kafka import TopicPartition as KafkaTopicPartition
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec
from kafka.structs import OffsetAndMetadata

from kafetrain.client.kafka_python_errors import client_error, is_retriable
from kafetrain.client.ports import ClientError, Committed, TopicDescription, TopicSpec
from kafetrain.record import TopicPartition

__all__ = ["KafkaPythonAdmin"]

T = TypeVar("T")

NEW_TOPIC_TIMEOUT_MS = 10_000
RETRY_AFTER_S = 0.1


class KafkaPythonAdmin:
    """An `AdminPort`. What may succeed a moment later is tried again, within the request timeout."""

    def __init__(self, admin: Any, timeout_ms: int) -> None:
        self._admin = admin
        self._timeout_ms = timeout_ms
        self._closing = threading.Event()

    def describe_topics(self, topics: Collection[str]) -> Mapping[str, TopicDescription]:
        if not topics:
            return {}
        names = sorted(topics)

        def describe() -> dict[str, TopicDescription]:
            answers = self._admin.describe_topics(names)
            return {answer["name"]: found for answer in answers if (found := _description(answer)) is not None}

        return self._call(f"describing {', '.join(names)}", describe)

    def topic_configs(self, topics: Collection[str]) -> Mapping[str, Mapping[str, str]]:
        if not topics:
            return {}
        names = sorted(topics)
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        # "all": otherwise only what differs from the default.
        answers = self._call(
            f"reading the settings of {', '.join(names)}",
            lambda: self._admin.describe_configs(resources, config_filter="all").get("topic", {}),
        )
        # The library drops the broker's errors, and gives no settings in their place.
        if untold := [name for name in names if not answers.get(name)]:
            raise ClientError(
                f"Kafka does not tell the settings of {', '.join(untold)}: is the topic there, and may this user "
                f"DescribeConfigs on it?"
            )
        return {
            name: {key: entry["value"] for key, entry in answers[name].items() if entry["value"] is not None}
            for name in names
        }

    def create_topics(self, topics: Sequence[TopicSpec]) -> None:
        if not topics:
            return
        names = [topic.name for topic in topics]
        wanted = {
            topic.name: {
                "num_partitions": topic.partitions,
                "replication_factor": topic.replication_factor,
                "configs": dict(topic.configs),
            }
            for topic in topics
        }

        def create() -> None:
            answer = self._admin.create_topics(wanted, timeout_ms=self._timeout_ms, raise_errors=False)
            for topic in answer["topics"]:
                try:
                    _check(topic["name"], topic["error_code"], topic.get("error_message"))
                except kafka_errors.TopicAlreadyExistsError:
                    pass

        self._call(f"creating {', '.join(names)}", create)
        try:
            # Created is not yet known to every broker, and led by one.
            self._admin.wait_for_topics(names, timeout_ms=NEW_TOPIC_TIMEOUT_MS)
        except kafka_errors.KafkaTimeoutError as error:
            raise client_error(error, f"creating {', '.join(names)}") from error

    def grow_topic(self, topic: str, partitions: int) -> None:
        def has_enough() -> bool:
            found = self.describe_topics([topic]).get(topic)
            if found is None:
                raise ClientError(f"growing {topic}: it does not exist")
            return found.partitions >= partitions

        def grow() -> None:
            if has_enough():
                return
            answer = self._admin.create_partitions({topic: partitions}, timeout_ms=self._timeout_ms, raise_errors=False)
            for result in answer.results:
                try:
                    _check(result.name, result.error_code, result.error_message)
                except kafka_errors.InvalidPartitionsError:
                    if not has_enough():  # otherwise someone else has grown it in between
                        raise

        doing = f"growing {topic} to {partitions} partitions"
        self._call(doing, grow)
        deadline = time.monotonic() + NEW_TOPIC_TIMEOUT_MS / 1000
        while not has_enough():  # grown is not yet known to every broker
            if time.monotonic() > deadline or self._closing.wait(RETRY_AFTER_S):
                raise ClientError(f"{doing}: not known to the brokers yet", retriable=True)

    def committed(self, group: str, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Committed]:
        if not partitions:
            return {}
        places = [KafkaTopicPartition(*partition) for partition in sorted(partitions)]
        answers = self._call(
            f"reading what group {group} has committed",
            lambda: self._admin.list_group_offsets({group: places})[group],
            group,
        )
        return {
            TopicPartition(*place): Committed(
                answer.offset, (answer.metadata or "").rstrip("\0")
            )  # confluent-kafka writes a NUL
            for place, answer in answers.items()
            if answer.offset >= 0
        }

    def set_committed(self, group: str, next_offsets: Mapping[TopicPartition, Committed]) -> None:
        if not next_offsets:
            return
        offsets = {
            KafkaTopicPartition(*partition): OffsetAndMetadata(committed.next_offset, committed.metadata, -1)
            for partition, committed in next_offsets.items()
        }

        def commit() -> None:
            for place, error in self._admin.alter_group_offsets(group, offsets).items():
                if error is not kafka_errors.NoError:
                    raise error(f"{place.topic}[{place.partition}]")

        self._call(f"committing for group {group}", commit, group)

    def group_members(self, group: str) -> int:
        def count() -> int:
            answer = self._admin.describe_groups([group])[group]
            error = answer["error"]  # as text
            if error is not None and kafka_errors.GroupIdNotFoundError.__name__ not in error:
                raise ClientError(error, retriable="Coordinator" in error)
            return len(answer["members"])

        return self._call(f"asking for the members of group {group}", count, group)

    def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        if not partitions:
            return {}
        names = ", ".join(f"{topic}[{partition}]" for topic, partition in sorted(partitions))
        asked = {KafkaTopicPartition(*partition): OffsetSpec.LATEST for partition in partitions}
        answers = self._call(f"listing offsets of {names}", lambda: self._admin.list_partition_offsets(asked))
        return {TopicPartition(*place): int(answer.offset) for place, answer in answers.items()}

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        if not before:
            return
        names = ", ".join(f"{topic}[{partition}]" for topic, partition in sorted(before))
        offsets = {KafkaTopicPartition(*partition): next_offset for partition, next_offset in before.items()}
        self._call(
            f"deleting records of {names}", lambda: self._admin.delete_records(offsets, timeout_ms=self._timeout_ms)
        )

    def close(self) -> None:
        self._closing.set()
        self._admin.close()

    def _call(self, doing: str, call: Callable[[], T], group: str | None = None) -> T:
        deadline = time.monotonic() + self._timeout_ms / 1000
        while True:
            try:
                return call()
            except Exception as error:
                retriable = error.retriable if isinstance(error, ClientError) else is_retriable(error)
                if not retriable or time.monotonic() + RETRY_AFTER_S > deadline:
                    raise client_error(error, doing) from error
            if group is not None:
                # The library never forgets a coordinator, not even one that says that it is none.
                self._admin._manager.cluster._coordinators.clear()
            if self._closing.wait(RETRY_AFTER_S):
                raise ClientError(f"{doing}: the admin client was closed")


def _description(answer: Mapping[str, Any]) -> TopicDescription | None:
    error = kafka_errors.for_code(answer["error_code"])
    if error is kafka_errors.UnknownTopicOrPartitionError:
        return None
    if error is not kafka_errors.NoError:
        raise error(answer["name"])
    partitions = answer["partitions"]
    replicas = max((len(partition["replica_nodes"]) for partition in partitions), default=0)
    topic_id = answer.get("topic_id")
    return TopicDescription(answer["name"], len(partitions), replicas, "" if topic_id is None else str(topic_id))


def _check(topic: str, code: int, message: str | None) -> None:
    error = kafka_errors.for_code(code)
    if error is not kafka_errors.NoError:
        raise error(f"{topic}: {message}" if message else topic)
