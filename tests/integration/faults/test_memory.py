"""Memory follows what is under way, not what waits: a backlog, keys in retry, a broker that is gone."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from confluent_kafka import Producer

from kafetrain import Settings
from kafetrain.client.kafka_python import KafkaPythonClient
from kafetrain.client.ports import ClientError, OutgoingRecord
from kafetrain.testing import Broker
from kafetrain.testing.apache_kafka import ApacheKafkaBroker
from tests.integration.faults.conftest import ScenarioFactory
from tests.integration.faults.worker import Plan
from tests.integration.own_kafka import distribution

MIB = 1 << 20
SCALE = int(os.environ.get("KAFETRAIN_TEST_SCALE", "1"))
"""How many times as much: with 10, two million records and a hundred thousand keys."""
BACKLOG = 200_000 * SCALE
KEYS = 10_000 * SCALE

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600 * SCALE)]


def write_many(broker: Broker, topic: str, count: int, value: bytes, *, keys: int) -> None:
    """Quickly: by another client."""
    producer = Producer(
        {"bootstrap.servers": broker.bootstrap_servers, "linger.ms": 20, "queue.buffering.max.messages": count + 1}
    )
    for number in range(count):
        producer.produce(topic, value, key=b"k%d" % (number % keys), partition=0)
        producer.poll(0)
    assert producer.flush(60 * SCALE) == 0


def resident_mib(pid: int) -> float:
    """What a process has in memory; Linux only."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        pytest.skip("needs /proc")
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


def test_a_backlog_behind_a_slow_handler_stays_at_the_broker(new_scenario: ScenarioFactory) -> None:
    """Records of 500 bytes, 100 MB and more: more than is ever held."""
    quick, slow = new_scenario(1), new_scenario(1, work_ms=20, concurrency=1)
    value = b'{"failures": 0, "work_ms": 0}'.ljust(500)
    write_many(quick.broker, quick.topic, 10, value, keys=10)
    write_many(slow.broker, slow.topic, BACKLOG, value, keys=1_000)
    idle, busy = quick.start(), slow.start()
    quick.wait_for("a few are handled", lambda history: history.count("ended") == 10)
    slow.wait_for("it works", lambda history: history.count("ended") > 150)
    assert resident_mib(busy.pid) < resident_mib(idle.pid) + 60
    for process in (idle, busy):
        process.stop()


def test_many_keys_in_retry_at_once_take_a_few_kilobytes_each(new_scenario: ScenarioFactory) -> None:
    quick = new_scenario(1)
    many = new_scenario(
        1, keys=KEYS, backoff_ms=15_000 * SCALE, concurrency=8, client_options={"session_timeout_ms": 45_000}
    )
    quick.produce([Plan()] * 10)
    many.produce([Plan(1)] * KEYS)
    idle, busy = quick.start(), many.start()
    quick.wait_for("a few are handled", lambda history: history.count("ended") == 10)
    many.wait_for("all have failed", lambda history: history.count("failed") == KEYS, timeout=240 * SCALE)
    many.wait_until_settled(timeout=240 * SCALE)
    grown = resident_mib(busy.pid) - resident_mib(idle.pid)
    idle.stop()
    many.finish(busy).retries_end_once()
    print(f"{grown:.0f} MiB more than an idle one")
    assert grown < 200 + 4 * KEYS / 1_000  # MiB: what was in flight at the peak, and 4 kB for each


@pytest.fixture
def mortal_broker() -> Iterator[ApacheKafkaBroker]:
    with ApacheKafkaBroker(*distribution()) as broker:
        assert isinstance(broker, ApacheKafkaBroker)
        yield broker


def test_a_producer_takes_no_more_than_its_bound_while_the_broker_is_gone(mortal_broker: ApacheKafkaBroker) -> None:
    mortal_broker.create_topic("orders")
    settings = Settings(
        bootstrap_servers=mortal_broker.bootstrap_servers,
        group_id="billing",
        client_options={"max_block_ms": 200},
        _env_file=None,
    )
    producer = KafkaPythonClient(settings).producer()
    value = b"x" * 10_000
    record = OutgoingRecord("orders", 0, b"key", value, [], None)
    assert producer.send(record).result(30) == 0
    mortal_broker.kill()
    tracemalloc.start(1)
    try:
        refused = 0
        for _ in range(20_000):  # 200 MB
            future = producer.send(OutgoingRecord("orders", 0, b"key", bytes(value), [], None))
            if future.done():
                error = future.exception()
                assert isinstance(error, ClientError)
                assert error.retriable
                refused += 1
                if refused == 3:
                    break
        assert refused == 3, "it took everything"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        producer.close(timedelta(seconds=1))
    assert peak < 160 * MIB
