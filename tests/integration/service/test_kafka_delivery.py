"""Deliveries to a real Kafka."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition

from kafetrain.service.adapters.kafka_destination import KafkaDestination
from kafetrain.service.ports.destination import Delivery
from kafetrain.service.settings import ServiceSettings
from kafetrain.testing import Broker
from kafetrain.testing.pytest_plugin import TopicFactory
from tests.integration.service.conftest import StartService
from tests.waiting import wait_for

pytestmark = pytest.mark.kafka


def read(broker: Broker, topic: str) -> list[Any]:
    consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap_servers, fetch_max_wait_ms=20, **broker.client_options)
    try:
        places = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        ends = consumer.end_offsets(places)
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        found: list[Any] = []
        while any(consumer.position(place) < ends[place] for place in places):
            for records in consumer.poll(timeout_ms=500).values():
                found += records
        return found
    finally:
        consumer.close()


def kafka_task(id: str, server: str, topic: str, dead: str, **changes: Any) -> dict[str, Any]:
    host, port = server.split(":")
    return {
        "id": id,
        "source": "shop",
        "destination": {"host": host, "port": port, "topic": topic},
        "dead_destination": {"host": host, "port": int(port), "topic": dead},
        "max_retries": 3,
        "base_delay": 0,
        "client_id": "c1",
        "message_data": f"any text, ünï: {id}",
        "destination_type": "kafka",
        **changes,
    }


@pytest.fixture
def server(kafetrain_broker: Broker) -> str:
    return kafetrain_broker.bootstrap_servers.split(",")[0]


def test_records_have_key_and_value_and_are_spread(
    start_service: StartService, kafetrain_broker: Broker, kafetrain_topic: TopicFactory, server: str
) -> None:
    topic, dead = kafetrain_topic(4), kafetrain_topic(1)
    service = start_service(KAFKA_BROKERS=server)
    tasks = [kafka_task(f"k{i}", server, topic, dead) for i in range(200)]
    service.create_all(tasks)
    service.create(kafka_task("straight to the dead", server, topic, dead, max_retries=0))
    wait_for("all are delivered", lambda: service.http.get("/tasks?state=scheduled").json()["tasks"] == [])
    records = read(kafetrain_broker, topic)
    assert sorted((record.key.decode(), record.value.decode()) for record in records) == sorted(
        (f"{task['id']}|1", task["message_data"]) for task in tasks
    )
    assert {record.partition for record in records} == {0, 1, 2, 3}
    assert [record.key for record in read(kafetrain_broker, dead)] == [b"straight to the dead|0"]


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_records_may_be_compressed(
    start_service: StartService, kafetrain_broker: Broker, kafetrain_topic: TopicFactory, server: str, compression: str
) -> None:
    topic = kafetrain_topic(1)
    service = start_service(KAFKA_BROKERS=server, KAFKA_COMPRESSION=compression)
    service.create(kafka_task("one", server, topic, topic))
    service.wait_for_state("one", "delivered")
    [record] = read(kafetrain_broker, topic)
    assert record.value.decode() == "any text, ünï: one"


def test_a_topic_that_does_not_exist_is_an_error_and_is_not_created(
    start_service: StartService, kafetrain_broker: Broker, kafetrain_topic: TopicFactory, server: str
) -> None:
    dead = kafetrain_topic(1)
    service = start_service(KAFKA_BROKERS=server)
    service.create(kafka_task("lost", server, "no-such-topic", dead))
    task = service.wait_for_state("lost", "dead_lettered")
    assert [one["error"] for one in task["attempts"]] == [
        *[f"topic no-such-topic does not exist at {server}"] * 3,
        None,
    ]
    assert [json.loads(f'"{record.key.decode()}"') for record in read(kafetrain_broker, dead)] == ["lost|3"]


def test_a_broker_that_is_not_there_costs_the_others_nothing(
    start_service: StartService, kafetrain_broker: Broker, kafetrain_topic: TopicFactory, server: str
) -> None:
    topic = kafetrain_topic(1)
    service = start_service(KAFKA_BROKERS=server, ALLOWED_BROKERS="127.0.0.1:1")
    service.create_all([kafka_task(f"away {i}", "127.0.0.1:1", topic, topic) for i in range(50)])
    begun = time.monotonic()
    service.create_all([kafka_task(f"here {i}", server, topic, topic) for i in range(50)])
    wait_for("those for the other broker are delivered", lambda: len(read(kafetrain_broker, topic)) == 50)
    assert time.monotonic() - begun < 10
    task = service.wait_for_state("away 7", "dead")
    assert "127.0.0.1:1" in task["attempts"][0]["error"]


def test_one_producer_serves_a_broker_and_is_closed_when_nobody_uses_it(
    kafetrain_broker: Broker, kafetrain_topic: TopicFactory, server: str
) -> None:
    topics = [kafetrain_topic(1), kafetrain_topic(1)]
    host, port = server.split(":")
    destination = KafkaDestination(ServiceSettings(kafka_brokers=(server,)), idle_s=1.0, look_every_s=0.05)

    def producers() -> int:
        return sum(thread.name == "kafetrain-service-kafka" for thread in threading.enumerate())

    async def run() -> None:
        await destination.open()
        for key in ("first|1", "later|1"):
            addresses = [destination.address({"host": host, "port": port, "topic": topic}) for topic in topics]
            await asyncio.gather(*(destination.deliver(Delivery(one, key, "any text", "c1")) for one in addresses))
            assert producers() == 1
            while producers():
                await asyncio.sleep(0.02)
        await destination.close()

    asyncio.run(asyncio.wait_for(run(), 120))
    for topic in topics:
        assert [record.key for record in read(kafetrain_broker, topic)] == [b"first|1", b"later|1"]
