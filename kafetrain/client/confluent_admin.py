"""The admin port on confluent-kafka's `AdminClient`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel, KafkaError, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as LibraryPartition
from confluent_kafka.admin import ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourceType

from kafetrain.client.confluent_errors import client_error, error_of, is_retriable
from kafetrain.client.ports import AdminPort, ClientError, Committed, TopicDescription, TopicSpec
from kafetrain.record import TopicPartition

__all__ = ["ConfluentAdmin"]

T = TypeVar("T")

NEW_TOPIC_TIMEOUT_S = 10.0
RETRY_AFTER_S = 0.1
_IS_MISSING = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.UNKNOWN_TOPIC_ID)
_HAS_MEMBERS = (KafkaError.UNKNOWN_MEMBER_ID, KafkaError.NON_EMPTY_GROUP)


class ConfluentAdmin:
    """An `AdminPort`. What may succeed a moment later is tried again, within the request timeout."""

    def __init__(self, admin: Any, timeout_s: float, build_reader: Callable[[], AdminPort] | None = None) -> None:
        self._admin, self._timeout_s = admin, timeout_s
        self._build_reader = build_reader
        self._reader: AdminPort | None = None  # built when committed offsets are asked for
        self._building = threading.Lock()
        self._closing = threading.Event()

    def describe_topics(self, topics: Collection[str]) -> Mapping[str, TopicDescription]:
        if not topics:
            return {}
        names = sorted(topics)

        def describe() -> dict[str, TopicDescription]:
            answers = self._admin.describe_topics(TopicCollection(names), request_timeout=self._timeout_s)
            found = {}
            for name, answer in answers.items():
                try:
                    found[name] = _description(answer.result())
                except KafkaException as error:
                    if error_of(error).code() not in _IS_MISSING:
                        raise
            return found

        return self._call(f"describing {', '.join(names)}", describe)

    def topic_configs(self, topics: Collection[str]) -> Mapping[str, Mapping[str, str]]:
        if not topics:
            return {}
        names = sorted(topics)

        def read() -> dict[str, dict[str, str]]:
            asked = [ConfigResource(ResourceType.TOPIC, name) for name in names]
            answers = self._admin.describe_configs(asked, request_timeout=self._timeout_s)
            found = {}
            for resource, answer in answers.items():
                try:
                    entries = answer.result()
                except KafkaException as error:
                    if error_of(error).code() in _IS_MISSING:
                        raise ClientError(f"Kafka does not tell the settings of {resource.name}: {error}") from error
                    raise
                found[resource.name] = {name: e.value for name, e in entries.items() if e.value is not None}
            return found

        return self._call(f"reading the settings of {', '.join(names)}", read)

    def create_topics(self, topics: Sequence[TopicSpec]) -> None:
        if not topics:
            return
        names = [topic.name for topic in topics]
        doing = f"creating {', '.join(names)}"
        wanted = [
            NewTopic(topic.name, topic.partitions, topic.replication_factor, config=dict(topic.configs))
            for topic in topics
        ]

        def create() -> None:
            answers = self._admin.create_topics(
                wanted, operation_timeout=self._timeout_s, request_timeout=self._timeout_s
            )
            for answer in answers.values():
                try:
                    answer.result()
                except KafkaException as error:
                    if error_of(error).code() != KafkaError.TOPIC_ALREADY_EXISTS:
                        raise

        self._call(doing, create)
        # Created is not yet known to every broker.
        self._wait_until(doing, lambda: len(self.describe_topics(names)) == len(set(names)))

    def grow_topic(self, topic: str, partitions: int) -> None:
        def has_enough() -> bool:
            found = self.describe_topics([topic]).get(topic)
            if found is None:
                raise ClientError(f"growing {topic}: it does not exist")
            return found.partitions >= partitions

        def grow() -> None:
            if has_enough():
                return
            wanted = [NewPartitions(topic, partitions)]
            answers = self._admin.create_partitions(
                wanted, operation_timeout=self._timeout_s, request_timeout=self._timeout_s
            )
            try:
                answers[topic].result()
            except KafkaException as error:
                # Otherwise someone else has grown it in between.
                if error_of(error).code() != KafkaError.INVALID_PARTITIONS or not has_enough():
                    raise

        doing = f"growing {topic} to {partitions} partitions"
        self._call(doing, grow)
        self._wait_until(doing, has_enough)

    def committed(self, group: str, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Committed]:
        """The library reads on behind a commit's metadata, where that has no NUL at its end: what it gives then is that
        and garbage, or a decoding error. So another client is asked, as far as one can be."""
        if not partitions:
            return {}
        if self._build_reader is not None:
            with self._building:
                self._reader = self._reader or self._build_reader()
            return self._reader.committed(group, partitions)

        def read() -> dict[TopicPartition, Committed]:
            places = [LibraryPartition(*partition) for partition in sorted(partitions)]
            asked = [ConsumerGroupTopicPartitions(group, places)]
            answers = self._admin.list_consumer_group_offsets(asked, request_timeout=self._timeout_s)
            found = {}
            for answer in answers[group].result().topic_partitions:
                if answer.error is not None:
                    raise KafkaException(answer.error)
                if answer.offset >= 0:
                    place = TopicPartition(answer.topic, answer.partition)
                    found[place] = Committed(answer.offset, answer.metadata or "")
            return found

        return self._call(f"reading what group {group} has committed", read)

    def set_committed(self, group: str, next_offsets: Mapping[TopicPartition, Committed]) -> None:
        if not next_offsets:
            return

        def commit() -> None:
            offsets = [
                LibraryPartition(place.topic, place.partition, committed.next_offset, committed.metadata)
                for place, committed in next_offsets.items()
            ]
            asked = [ConsumerGroupTopicPartitions(group, offsets)]
            answers = self._admin.alter_consumer_group_offsets(asked, request_timeout=self._timeout_s)
            for answer in answers[group].result().topic_partitions:
                if answer.error is not None:
                    raise KafkaException(answer.error)

        self._call(f"committing for group {group}", commit)

    def group_members(self, group: str) -> int:
        def count() -> int:
            answers = self._admin.describe_consumer_groups([group], request_timeout=self._timeout_s)
            try:
                return len(answers[group].result().members)
            except KafkaException as error:
                if error_of(error).code() == KafkaError.GROUP_ID_NOT_FOUND:
                    return 0
                raise

        return self._call(f"asking for the members of group {group}", count)

    def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return self._list_offsets(partitions, OffsetSpec.latest)

    def beginning_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """As `ConsumerPort.beginning_offsets`."""
        return self._list_offsets(partitions, OffsetSpec.earliest)

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        if not before:
            return
        names = ", ".join(f"{topic}[{partition}]" for topic, partition in sorted(before))

        def delete() -> None:
            offsets = [LibraryPartition(*partition, next_offset) for partition, next_offset in before.items()]
            answers = self._admin.delete_records(
                offsets, operation_timeout=self._timeout_s, request_timeout=self._timeout_s
            )
            for answer in answers.values():
                answer.result()

        self._call(f"deleting records of {names}", delete)

    def close(self) -> None:
        self._closing.set()
        self._admin = None  # which ends it
        with self._building:
            if self._reader is not None:
                self._reader.close()

    def _list_offsets(
        self, partitions: Collection[TopicPartition], spec: Callable[[], Any]
    ) -> Mapping[TopicPartition, int]:
        if not partitions:
            return {}
        names = ", ".join(f"{topic}[{partition}]" for topic, partition in sorted(partitions))

        def ask() -> dict[TopicPartition, int]:
            asked = {LibraryPartition(*partition): spec() for partition in partitions}
            # Read committed would tell where the first open transaction begins.
            answers = self._admin.list_offsets(
                asked, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=self._timeout_s
            )
            return {TopicPartition(p.topic, p.partition): int(a.result().offset) for p, a in answers.items()}

        return self._call(f"listing offsets of {names}", ask)

    def _call(self, doing: str, call: Callable[[], T]) -> T:
        deadline = time.monotonic() + self._timeout_s
        while True:
            if self._closing.is_set():
                raise ClientError(f"{doing}: the admin client was closed")
            try:
                return call()
            except Exception as error:
                if not is_retriable(error) or time.monotonic() + RETRY_AFTER_S > deadline:
                    raise client_error(error, doing) from error
            finally:
                if self._admin is not None:
                    self._admin.poll(0)  # its logs and states, which would pile up
            self._closing.wait(RETRY_AFTER_S)

    def _wait_until(self, doing: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + NEW_TOPIC_TIMEOUT_S
        while not condition():
            if time.monotonic() > deadline or self._closing.wait(RETRY_AFTER_S):
                raise ClientError(f"{doing}: not known to the brokers yet", retriable=True)


def _description(answer: Any) -> TopicDescription:
    replicas = max((len(partition.replicas) for partition in answer.partitions), default=0)
    return TopicDescription(answer.name, len(answer.partitions), replicas, _topic_id(answer.topic_id))


def _topic_id(id: Any) -> str:
    if id is None:
        return ""
    high, low = (
        part & 0xFFFF_FFFF_FFFF_FFFF for part in (id.get_most_significant_bits(), id.get_least_significant_bits())
    )
    return str(UUID(int=high << 64 | low)) if high or low else ""
