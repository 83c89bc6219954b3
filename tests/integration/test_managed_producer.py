"""Managed producers on a real broker: what they write is read back by another client."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer as OtherConsumer
from confluent_kafka import Producer as OtherProducer
from kafka import KafkaAdminClient, TopicPartition

from kafetrain.client.ports import ClientError
from kafetrain.managed import ManagedProducer, Metadata, ProducerConfig, Registry
from tests.waiting import wait_for

if TYPE_CHECKING:
    from kafetrain.testing import Broker
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka

MakeProducer = Callable[..., ManagedProducer]


@pytest.fixture
def make(cluster: Cluster, kafetrain_broker: Broker) -> Iterator[MakeProducer]:
    with Registry() as registry:

        def make(**changes: Any) -> ManagedProducer:
            defaults: dict[str, Any] = {
                "name": uuid.uuid4().hex,
                "bootstrap_servers": kafetrain_broker.bootstrap_servers,
                "client_options": kafetrain_broker.client_options,
            }
            return registry.register_producer(ProducerConfig(**{**defaults, **changes}))

        yield make


def read_with_another_client(broker: Broker, topic: str, count: int) -> list[Any]:
    consumer = OtherConsumer(
        {"bootstrap.servers": broker.bootstrap_servers, "group.id": topic, "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([topic])
    try:
        return list(consumer.consume(count, 30))
    finally:
        consumer.close()


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_every_compression_is_read_back_by_another_client(
    make: MakeProducer, cluster: Cluster, kafetrain_topic: TopicFactory, kafetrain_broker: Broker, compression: str
) -> None:
    topic = kafetrain_topic(prefix="orders")
    sent = make(compression=compression).send(topic, "key", "v" * 4000, {"text": "é", "bytes": b"\xff"})
    assert sent == Metadata(partition=0, offset=0)
    partition, offset = sent
    assert (partition, offset) == (0, 0)
    (read,) = read_with_another_client(kafetrain_broker, topic, 1)
    assert (read.key(), read.value()) == (b"key", b"v" * 4000)
    assert read.headers() == [("text", "é".encode()), ("bytes", b"\xff")]
    (batch,) = cluster.read(topic)
    assert batch.value == b"v" * 4000


def test_a_key_goes_where_other_clients_put_it_and_keyless_records_to_all_partitions(
    make: MakeProducer, cluster: Cluster, kafetrain_topic: TopicFactory, kafetrain_broker: Broker
) -> None:
    topic, producer = kafetrain_topic(6, prefix="orders"), make(enable_async=True)
    keys = [b"", b"a", b"order-17", "Zürich".encode(), bytes(range(256))]
    ours = [producer.send(topic, key, b"") for key in keys]
    other = OtherProducer({"bootstrap.servers": kafetrain_broker.bootstrap_servers, "partitioner": "murmur2"})
    theirs: dict[bytes, int] = {}
    for key in keys:
        other.produce(topic, b"", key, on_delivery=lambda error, m: theirs.update({m.key() or b"": m.partition()}))
    other.flush(30)
    assert [sent.partition for sent in ours] == [theirs[key] for key in keys]
    used: set[int] = set()
    for _ in range(700):
        producer.send_async(topic, None, b"x", callback=lambda m, error: used.add(m.partition if m else -1))
    assert producer.flush(30)
    assert used == set(range(6))


@pytest.mark.parametrize(("idempotent", "known"), [(True, True), (None, True), (False, False)])
def test_an_idempotent_producer_is_known_to_the_broker(
    make: MakeProducer,
    kafetrain_topic: TopicFactory,
    kafetrain_broker: Broker,
    idempotent: bool | None,
    known: bool,
) -> None:
    topic = kafetrain_topic(prefix="orders")
    make(idempotent=idempotent).send(topic, None, b"x")
    admin = KafkaAdminClient(bootstrap_servers=kafetrain_broker.bootstrap_servers, **kafetrain_broker.client_options)
    try:
        states = admin.describe_producers([TopicPartition(topic, 0)])
    finally:
        admin.close()
    (state,) = states.values()
    assert bool(state.active_producers) is known


def test_without_acks_nobody_tells_the_offset(
    make: MakeProducer, cluster: Cluster, kafetrain_topic: TopicFactory
) -> None:
    topic = kafetrain_topic(prefix="orders")
    assert make(required_acks=0).send(topic, None, b"x") == Metadata(0, -1)
    assert make(required_acks="leader").send(topic, None, b"y").offset >= 0
    wait_for("both are there", lambda: {r.value for r in cluster.read(topic)} == {b"x", b"y"})


def test_send_async_keeps_the_order_calls_back_for_each_and_close_waits_for_all(
    make: MakeProducer, cluster: Cluster, kafetrain_topic: TopicFactory
) -> None:
    topic, producer = kafetrain_topic(prefix="orders"), make(enable_async=True, max_pending=50)
    sent: list[Metadata | None] = []
    for number in range(500):
        producer.send_async(topic, b"k", b"%d" % number, callback=lambda metadata, error: sent.append(metadata))
    producer.close(30)
    assert [m and m.offset for m in sent] == list(range(500))
    assert [record.value for record in cluster.read(topic)] == [b"%d" % number for number in range(500)]


def test_a_callback_may_send(make: MakeProducer, cluster: Cluster, kafetrain_topic: TopicFactory) -> None:
    topic, producer = kafetrain_topic(prefix="orders"), make(enable_async=True)
    producer.send_async(topic, None, b"1", callback=lambda m, e: producer.send(topic, None, b"2"))
    assert producer.flush(30)
    assert [record.value for record in cluster.read(topic)] == [b"1", b"2"]


def test_what_fails_says_which_topic_and_why(make: MakeProducer, kafetrain_topic: TopicFactory) -> None:
    topic, producer = kafetrain_topic(prefix="orders"), make(delivery_timeout="1s", max_message_bytes=2000)
    began = time.monotonic()
    with pytest.raises(ClientError, match=f"sending to no-{topic}: no broker tells its partitions"):
        producer.send(f"no-{topic}", None, b"x")
    assert time.monotonic() - began < 10
    with pytest.raises(ClientError, match=rf"sending to {topic}\[0\]: .*2000|sending to {topic}\[0\]: .*larger"):
        producer.send(topic, None, b"x" * 3000)
