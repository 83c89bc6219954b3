"""The examples that are apps, run by `kafetrain run` as their first lines say."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

from tests.waiting import wait_for

if TYPE_CHECKING:
    from kafetrain.testing import Broker
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


@contextmanager
def running(name: str, broker: Broker, topic: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "kafetrain", "run", f"{name}:app"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "KAFKA_BROKERS": broker.bootstrap_servers,
        "KAFKA_TOPICS": topic,
    }
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=EXAMPLES, env=environment
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(30)


def lines(stream: IO[str] | None, count: int) -> list[str]:
    assert stream is not None
    return [stream.readline().strip() for _ in range(count)]


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module(name)


def test_router(cluster: Cluster, kafetrain_topic: TopicFactory, kafetrain_broker: Broker) -> None:
    topic, other = kafetrain_topic(prefix="orders"), kafetrain_topic(prefix="chargebacks")
    cluster.write(topic, b"ann", b'{"number": 1}')
    cluster.write(other, b"ann", b"{}")
    with running("router", kafetrain_broker, topic) as process:
        first, *handled = lines(process.stdout, 3)
        assert first == "connected to the database"
        assert sorted(handled) == [f"{other}: refunded", "order 1: charged"]
        process.terminate()
        assert lines(process.stdout, 1) == ["disconnected"]


@pytest.mark.parametrize("name", ["json_orders", "avro_orders", "protobuf_orders"])
def test_each_format_is_read_and_what_is_none_is_a_dead_letter(
    cluster: Cluster,
    kafetrain_topic: TopicFactory,
    kafetrain_broker: Broker,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    topic, module = kafetrain_topic(prefix="orders"), example(name, monkeypatch)
    order = module.Order(number=17, customer="ann")
    encode = {
        "json_orders": lambda: order.model_dump_json().encode(),
        "avro_orders": lambda: module.encode(order),
        "protobuf_orders": lambda: order.SerializeToString(),
    }
    cluster.write(topic, b"ann", encode[name](), b"\xff\xff\xff")
    with running(name, kafetrain_broker, topic) as process:
        (line,) = lines(process.stdout, 1)
        assert line.startswith("order 17 of ann: charged")
        wait_for("the other one is dead", lambda: cluster.exists(f"dlq-{topic}") and cluster.read(f"dlq-{topic}"))
    (dead,) = cluster.read(f"dlq-{topic}")
    assert dict(dead.headers)["x-dlq-state"] == b"not-retriable"
