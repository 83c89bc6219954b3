"""Kafka as these tests see it, past kafetrain: they write source records, and look at what is in the topics.

A pytest plugin, for its fixtures: `pytest_plugins = ["tests.integration.cluster"]`.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.structs import OffsetAndMetadata

from kafetrain import ConstantBackoff, Settings
from kafetrain.client.kafka_python_workarounds import keep_producer_usable_after_rejections
from kafetrain.record import MessageId
from kafetrain.testing import Broker
from kafetrain.topics import AuxiliaryTopics
from tests.clients import library_under_test, named_for
from tests.integration.journal import Place, Written
from tests.waiting import wait_for

__all__ = ["Cluster", "Headers", "MakeSettings", "cluster", "make_settings"]

Headers = Sequence["tuple[str, bytes | None]"]
MakeSettings = Callable[..., Settings]


class Cluster:
    """The session's broker, with one client of each kind. For the test's own thread."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self._options = options = {"bootstrap_servers": broker.bootstrap_servers, **broker.client_options}
        self._producer = KafkaProducer(acks="all", max_request_size=64 << 20, **options)
        keep_producer_usable_after_rejections(self._producer)
        self._consumer = KafkaConsumer(fetch_max_wait_ms=20, isolation_level="read_committed", **options)
        self._admin = KafkaAdminClient(**options)

    def close(self) -> None:
        for client in (self._producer, self._consumer, self._admin):
            client.close()

    # Writing

    def write(
        self, topic: str, key: bytes | None, *values: bytes | None, partition: int = 0, headers: Headers = ()
    ) -> list[Written]:
        """Records of one key, in order; durable on return."""
        return self.write_all(topic, [(partition, key, value) for value in values], headers=headers)

    def write_all(
        self, topic: str, records: Iterable[tuple[int, bytes | None, bytes | None]], *, headers: Headers = ()
    ) -> list[Written]:
        """Records as (partition, key, value)."""
        sent = [
            (self._producer.send(topic, value, key=key, partition=partition, headers=list(headers)), key)
            for partition, key, value in records
        ]
        self._producer.flush()
        return [Written(future.get().partition, future.get().offset, key) for future, key in sent]

    def write_as_others_can(
        self, topic: str, key: bytes | None, value: bytes | None, *, partition: int = 0, headers: Headers = ()
    ) -> None:
        """With another client, which also writes null headers, and records with neither key nor value."""
        from confluent_kafka import Producer

        producer = Producer({"bootstrap.servers": self.broker.bootstrap_servers})
        producer.produce(topic, value, key, partition=partition, headers=list(headers))
        assert producer.flush(30) == 0

    def write_in_transactions(self, topic: str, *transactions: tuple[str, list[tuple[bytes, bytes]]]) -> None:
        """Each as ("commit" or "abort", [(key, value), ...])."""
        with KafkaProducer(
            transactional_id=f"test-{uuid.uuid4().hex}", retry_backoff_ms=5, **self._options
        ) as producer:
            producer.init_transactions()
            for end, records in transactions:
                producer.begin_transaction()
                for key, value in records:
                    producer.send(topic, value, key=key, partition=0)
                producer.flush()
                producer.commit_transaction() if end == "commit" else producer.abort_transaction()

    def write_compressed(self, topic: str, key: bytes, value: bytes) -> None:
        """One large record, small on its way."""
        with KafkaProducer(compression_type="gzip", max_request_size=64 << 20, **self._options) as producer:
            producer.send(topic, value, key=key, partition=0).get(30)

    # Reading

    def read(self, topic: str) -> list[Any]:
        """All records of a topic, partition by partition."""
        places = [TopicPartition(topic, number) for number in range(self.partition_count(topic))]
        ends = self._consumer.end_offsets(places)
        self._consumer.assign(places)
        self._consumer.seek_to_beginning(*places)
        found: dict[TopicPartition, list[Any]] = {place: [] for place in places}
        while any(self._consumer.position(place) < ends[place] for place in places):
            for place, records in self._consumer.poll(timeout_ms=1000).items():
                found[place] += records
        return [record for place in places for record in found[place] if record.offset < ends[place]]

    def locks(self, redirect_topic: str) -> dict[str, dict[str, Any]]:
        """What the redirect topic says in the end, of every group: message id -> entry. Garbage is an empty entry."""
        entries: dict[str, dict[str, Any]] = {}
        for record in self.read(redirect_topic):
            try:
                id = str(MessageId.parse(record.key.decode()))
            except ValueError:
                continue  # a registration, or nobody's
            if record.value is None:
                entries.pop(id, None)
                continue
            try:
                entries[id] = json.loads(record.value)
            except ValueError:
                entries[id] = {}
        return entries

    def dead_places(self, dlq_topic: str) -> dict[Place, str]:
        """Which source records are in the dead-letter topic, and in which state."""
        found = {}
        for record in self.read(dlq_topic):
            headers = dict(record.headers)
            place = (int(headers["x-dlq-partition"]), int(headers["x-dlq-offset"]))
            found[place] = headers["x-dlq-state"].decode()
        return found

    def partition_count(self, topic: str) -> int:
        (described,) = self._admin.describe_topics([topic])
        return len(described["partitions"])

    def begin_offsets(self, topic: str) -> dict[int, int]:
        places = [TopicPartition(topic, number) for number in range(self.partition_count(topic))]
        return {place.partition: offset for place, offset in self._consumer.beginning_offsets(places).items()}

    def end_offsets(self, topic: str) -> dict[int, int]:
        places = [TopicPartition(topic, number) for number in range(self.partition_count(topic))]
        return {place.partition: offset for place, offset in self._consumer.end_offsets(places).items()}

    def committed(self, group: str, topic: str) -> dict[int, tuple[int, str]]:
        """Next offset and metadata, by partition; partitions without are left out."""
        places = [TopicPartition(topic, number) for number in range(self.partition_count(topic))]
        found = self._admin.list_group_offsets({group: places})[group]
        return {place.partition: (at.offset, at.metadata) for place, at in found.items() if at.offset >= 0}

    def exists(self, topic: str) -> bool:
        (described,) = self._admin.describe_topics([topic])
        return bool(described["error_code"] == 0)

    # Operating

    def commit(self, group: str, topic: str, next_offsets: Mapping[int, int], metadata: str = "") -> None:
        """As an operator's tool does, for a group without members."""
        offsets = {
            TopicPartition(topic, partition): OffsetAndMetadata(offset, metadata, -1)
            for partition, offset in next_offsets.items()
        }
        for place, error in self._admin.alter_group_offsets(group, offsets).items():
            if error.errno:
                raise error(f"{place}")

    def forget_group(self, group: str) -> None:
        """A group without members, and its offsets."""
        self._admin.delete_groups([group])

    def configure(self, topic: str, configs: Mapping[str, str]) -> None:
        """Change settings of a topic."""
        self._admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, dict(configs))])

    def delete_records(self, topic: str, before: Mapping[int, int]) -> None:
        """Everything below these offsets, by partition."""
        self._admin.delete_records({TopicPartition(topic, partition): offset for partition, offset in before.items()})

    def check_at_rest(self, settings: Settings, topic: str) -> None:
        """The group has no lock, and has committed everything of its own. For a group whose members have left."""
        names = AuxiliaryTopics.of(settings, topic)
        left = [id for id in self.locks(names.redirect) if MessageId.parse(id)[:2] == (settings.group_id, topic)]
        if left:
            raise AssertionError(f"locks are left: {left[:10]}")
        own = [r for r in self.read(names.retry) if ("x-retry-group", settings.group_id.encode()) in r.headers]
        ends = {
            topic: {partition: end for partition, end in self.end_offsets(topic).items() if end},
            names.retry: {record.partition: record.offset + 1 for record in own},
        }
        for group, read in ((settings.group_id, topic), (settings.retry_group_id, names.retry)):
            committed = {partition: at for partition, (at, _) in self.committed(group, read).items()}
            if any(committed.get(partition, 0) < end for partition, end in ends[read].items()):
                raise AssertionError(f"{read} ends at {ends[read]}, and {group} has committed {committed}")


@pytest.fixture(scope="session")
def _session_cluster(kafetrain_broker: Broker) -> Iterator[Cluster]:
    if not kafetrain_broker.is_real:
        pytest.skip("needs Apache Kafka: a mock has no compaction, no purge and no topics as asked")
    cluster = Cluster(kafetrain_broker)
    yield cluster
    cluster.close()


@pytest.fixture
def cluster(_session_cluster: Cluster) -> Iterator[Cluster]:
    """Apache Kafka; the test is skipped where there is only a mock. Afterwards no thread of kafetrain may be left."""
    yield _session_cluster
    wait_for("threads of kafetrain have ended", lambda: not own_threads(), timeout=90)


def own_threads() -> list[str]:
    """Names of the threads that kafetrain has started and that run."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("kafetrain-")]


@pytest.fixture
def library() -> str:
    """The Kafka library of the clients under test. A module with a fixture of this name chooses another one."""
    return library_under_test()


@pytest.fixture
def make_settings(kafetrain_broker: Broker, library: str) -> MakeSettings:
    """Settings for a group of its own, with short waits, so that what should take seconds takes few."""

    def make(**changes: Any) -> Settings:
        options = {**kafetrain_broker.client_options, **changes.pop("client_options", {})}
        defaults: dict[str, Any] = {
            "bootstrap_servers": kafetrain_broker.bootstrap_servers,
            "group_id": f"group-{uuid.uuid4().hex[:8]}",
            "backoff": ConstantBackoff(timedelta(milliseconds=20)),
            "client": library,
            "client_options": named_for(library, options),
        }
        return Settings(**{**defaults, **changes})

    return make
