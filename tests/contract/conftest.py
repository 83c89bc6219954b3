"""One cluster fixture, four backends.

The simulated cluster, librdkafka's mock in this process, and Apache Kafka: there with kafka-python and confluent-kafka.
"""

from __future__ import annotations

import os
import signal
import threading
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import MemberToRemove

from kafetrain.client import confluent_consumer, kafka_python_consumer
from kafetrain.client.confluent import ConfluentClient
from kafetrain.client.kafka_python import KafkaPythonClient
from kafetrain.client.ports import AdminPort, Client, Committed, ConsumerPort, OutgoingRecord, ProducerPort
from kafetrain.record import Record, TopicPartition
from kafetrain.settings import Settings
from kafetrain.testing import Broker, EmbeddedBroker, NoBrokerError, kafka_broker
from kafetrain.testing.apache_kafka import ApacheKafkaBroker
from kafetrain.testing.embedded_client import EmbeddedClient
from kafetrain.testing.simulated import LoseAnswer, Refuse, Request, SimulatedCluster
from tests.clients import named_for
from tests.waiting import wait_for

PARTITIONS = 4
A_MOMENT = timedelta(milliseconds=20)
GAPS = {
    "embedded": {
        "admin": "the mock cluster has no CreateTopics, CreatePartitions, DescribeConfigs, LeaveGroup for others",
        "configs": "the mock cluster has no topic settings",
        "rebalances": "the mock cluster waits 3 s for a group's first member, and a session long in each rebalance",
        "purges": "the mock cluster has no DeleteRecords",
        "transactions": "the mock cluster writes no control records and has no last stable offset",
        "transactional producers": "the mock cluster fences nobody, and what it gives a reader after the end of a "
        "transaction is no readable batch",
    },
    "simulated": {
        "cooperative": "the simulated cluster's rebalances are eager",
        "client options": "the simulated cluster's clients have no options",
    },
}


NOT_WORTH_A_RUN = ("rebalances", "cooperative", "client options", "transactional producers")


class Owner:
    """A consumer and what an owner of it does: it notes its partitions, and lets go when it is told to."""

    def __init__(self, consumer: ConsumerPort, topics: Collection[str]) -> None:
        self.consumer = consumer
        self.owned: set[TopicPartition] = set()
        self.log: list[tuple[str, frozenset[TopicPartition]]] = []
        self.delivered: list[Record] = []
        self.completed: dict[TopicPartition, Committed] = {}
        self.is_idle = True
        self.asked = 0
        consumer.subscribe(topics, self)

    def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        self.log.append(("assigned", partitions))
        self.owned |= partitions

    def revoking(
        self, partitions: frozenset[TopicPartition]
    ) -> Callable[[], Mapping[TopicPartition, Committed] | None]:
        self.log.append(("revoking", partitions))

        def answer() -> Mapping[TopicPartition, Committed] | None:
            self.asked += 1
            if not self.is_idle:
                return None
            self.owned -= partitions
            return {place: self.completed[place] for place in partitions if place in self.completed}

        return answer

    def lost(self, partitions: frozenset[TopicPartition]) -> None:
        self.log.append(("lost", partitions))
        self.owned -= partitions

    def poll(self, timeout: timedelta = A_MOMENT, max_records: int = 500) -> list[Record]:
        batches = self.consumer.poll(timeout, max_records)
        records = [record for batch in batches.values() for record in batch]
        self.delivered += records
        return records

    def poll_until(self, description: str, condition: Callable[[], object]) -> None:
        def look() -> object:
            self.poll()
            return condition()

        wait_for(description, look)

    def join(self, partitions: int = PARTITIONS) -> None:
        self.poll_until(f"{partitions} partitions assigned", lambda: len(self.owned) == partitions)


CONFLUENT_ARGUMENTS = {"bootstrap_timeout_ms": "bootstrap_timeout_s", "max_block_ms": "max_block_s"}
"""What are options of kafka-python, and arguments of our client where librdkafka has none."""


def client_of(library: str, settings: Mapping[str, Any], options: Mapping[str, Any]) -> Client:
    """A client by settings, and by options that go by kafka-python's names."""
    if library != "confluent":
        return KafkaPythonClient(Settings(**settings, client_options=dict(options)))
    arguments = {CONFLUENT_ARGUMENTS[name]: options[name] / 1000 for name in CONFLUENT_ARGUMENTS if name in options}
    theirs = {name: value for name, value in options.items() if name not in CONFLUENT_ARGUMENTS}
    made = Settings(**settings, client="confluent", client_options=named_for(library, theirs))
    return ConfluentClient(made, **arguments)


class Cluster:
    """A broker, clients for it that are closed afterwards, and what a test needs to arrange."""

    bounds: ModuleType = kafka_python_consumer
    """Where the consumers' time limits are."""

    def __init__(self, broker: Broker, library: str = "kafka-python") -> None:
        self.broker, self.library = broker, library
        if library == "confluent":
            self.bounds = confluent_consumer
        self.servers = broker.bootstrap_servers.split(",")
        self._undo: list[Callable[[], None]] = []
        self._admin: AdminPort | None = None
        self._producer: ProducerPort | None = None

    def client(self, **options: Any) -> Client:
        """With these `client_options`, by kafka-python's names."""
        options = {**self.broker.client_options, **options}
        settings: dict[str, Any] = {"bootstrap_servers": self.servers, "group_id": "g"}
        if self.broker.is_real:
            return client_of(self.library, settings, options)
        return EmbeddedClient(Settings(**settings, client_options=options))

    def delete_topic(self, topic: str) -> None:
        self.broker.delete_topic(topic)

    def remove_members(self, group: str) -> None:
        """As an operator can: they do not know."""
        with KafkaAdminClient(bootstrap_servers=self.servers) as admin:
            members = admin.describe_groups([group])[group]["members"]
            admin.remove_group_members(group, [MemberToRemove(member_id=m["member_id"]) for m in members])

    @property
    def admin(self) -> AdminPort:
        if self._admin is None:
            self._admin = self.close_later(self.client().admin())
        return self._admin

    @property
    def producer(self) -> ProducerPort:
        if self._producer is None:
            producer = self._producer = self.client().producer()
            self._undo.append(lambda: producer.close(timedelta(seconds=2)))
        return self._producer

    def reader(self, **options: Any) -> ConsumerPort:
        reader = self.client(**options).reader()
        self.close_later(reader)
        return reader

    def member(self, topic: str, group: str | None = None, *, reset: str = "earliest", **options: Any) -> Owner:
        consumer = self.client(heartbeat_interval_ms=100, **options).group_consumer(
            group or f"group-{topic}", auto_offset_reset=reset
        )
        return Owner(self.close_later(consumer), [topic])

    def close_later(self, client: Any) -> Any:
        self._undo.append(client.close)
        return client

    def later(self, undo: Callable[[], None]) -> None:
        self._undo.append(undo)

    def topic(self, configs: Mapping[str, str] | None = None) -> str:
        return self.broker.create_unique_topic(PARTITIONS, configs, prefix="contract")

    def write(self, topic: str, count: int, partition: int = 0) -> None:
        """Records with their offsets as values, `v0` first."""
        sent = [self.producer.send(OutgoingRecord(topic, partition, b"k", b"v%d" % number)) for number in range(count)]
        for future in sent:
            future.result(10)

    def transactional(self, **options: Any) -> Any:
        """A bare producer that has begun a transaction, and no deadline but those of its own."""
        producer = KafkaProducer(
            bootstrap_servers=self.servers,
            transactional_id=f"transactions-{uuid.uuid4().hex[:12]}",
            retry_backoff_ms=5,
            max_block_ms=5_000,
            **{**self.broker.client_options, **options},
        )
        self._undo.append(lambda: producer.close(timeout=2))
        producer.init_transactions()
        producer.begin_transaction()
        return producer

    def lose_the_end_of_a_transaction(self, producer: Any, patch: pytest.MonkeyPatch, *, is_asked: bool) -> None:
        """Its commit is not answered, and the broker was asked for it or was not. `patch`: until it is undone."""
        end = producer._end

        def lose_the_answer() -> None:
            if is_asked:
                end()
            raise OSError("cut off")

        patch.setattr(producer, "_end", lose_the_answer)

    def close(self) -> None:
        while self._undo:
            self._undo.pop()()


class SimulatedBackend(Cluster):
    """The simulated cluster, used by threads."""

    def __init__(self, session_timeout_s: float = 1.0, rebalance_timeout_s: float = 3.0) -> None:
        self.simulated = SimulatedCluster(session_timeout_s=session_timeout_s, rebalance_timeout_s=rebalance_timeout_s)
        self._undo, self._admin, self._producer = [], None, None
        self._clients = 0

    def client(self, **options: Any) -> Client:
        self._clients += 1
        return self.simulated.client(f"client-{self._clients}")

    def topic(self, configs: Mapping[str, str] | None = None) -> str:
        return self.simulated.create_topic(f"contract-{uuid.uuid4().hex[:12]}", PARTITIONS, configs)

    def delete_topic(self, topic: str) -> None:
        self.simulated.delete_topic(topic)

    def remove_members(self, group: str) -> None:
        for number in range(self._clients):
            self.simulated.expire(f"client-{number + 1}")

    def transactional(self, **options: Any) -> Any:
        return _Transactional(self.simulated)

    def lose_the_end_of_a_transaction(self, producer: Any, patch: pytest.MonkeyPatch, *, is_asked: bool) -> None:
        self.simulated.on(Request.END_TRANSACTION, LoseAnswer() if is_asked else Refuse())


class _Transactional:
    """A transaction by the names of kafka-python's producer."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        transaction = cluster.begin_transaction()
        self._write = transaction.write
        self.commit_transaction, self.abort_transaction = transaction.commit, transaction.abort

    def send(self, topic: str, value: bytes, partition: int) -> Any:
        offset = self._write(topic, None, value, partition=partition)
        return SimpleNamespace(get=lambda timeout: offset)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"either_cluster", "kafka_cluster", "real_broker"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.kafka)


@contextmanager
def frozen(broker: Broker) -> Iterator[None]:
    """The broker stands still, as in a long pause of its garbage collector: connected, and silent."""
    supervisor = broker.process_id if isinstance(broker, ApacheKafkaBroker) else None
    if supervisor is None or not Path("/proc").exists():
        pytest.skip("needs Apache Kafka as a child process, on Linux")
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGSTOP)
    try:
        yield
    finally:
        for child in children:
            os.kill(int(child), signal.SIGCONT)


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[Broker]:
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture(scope="session")
def real_broker() -> Iterator[Broker]:
    try:
        with kafka_broker(allow_embedded=False) as broker:
            yield broker
    except NoBrokerError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


def _use(broker: Broker, library: str = "kafka-python") -> Iterator[Cluster]:
    """A cluster whose clients leave no thread behind."""
    before = set(threading.enumerate())
    cluster = Cluster(broker, library)
    try:
        yield cluster
    finally:
        cluster.close()
    wait_for("the clients' threads have ended", lambda: set(threading.enumerate()) <= before, timeout=90)


LIBRARIES = [pytest.param(name, marks=pytest.mark.kafka) for name in ("kafka-python", "confluent")]


@pytest.fixture(params=["simulated", "embedded", *LIBRARIES])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    for need in request.node.iter_markers("needs"):
        if reason := GAPS.get(request.param, {}).get(need.args[0]):
            request.applymarker(pytest.mark.xfail(strict=True, reason=reason, run=need.args[0] not in NOT_WORTH_A_RUN))
    if request.param == "simulated":
        simulated = SimulatedBackend()
        yield simulated
        simulated.close()
        return
    broker = request.getfixturevalue("embedded_broker" if request.param == "embedded" else "real_broker")
    yield from _use(broker, request.param)


@pytest.fixture(params=LIBRARIES)
def either_cluster(request: pytest.FixtureRequest, real_broker: Broker) -> Iterator[Cluster]:
    """Apache Kafka, with the one client and with the other."""
    yield from _use(real_broker, request.param)


@pytest.fixture
def kafka_cluster(real_broker: Broker) -> Iterator[Cluster]:
    yield from _use(real_broker)
