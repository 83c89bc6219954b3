"""`Messaging` on Kafka, and on Redis Streams as an example has it: one contract."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kafetrain import ConstantBackoff
from kafetrain.messaging import KafkaMessaging, Messaging
from kafetrain.messaging.contract import MessagingContract
from tests.redis_server import RedisServer

if TYPE_CHECKING:
    from kafetrain.testing import Broker
    from kafetrain.testing.pytest_plugin import TopicFactory

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.kafka
class TestKafka(MessagingContract):
    @pytest.fixture
    def messaging(self, kafetrain_broker: Broker) -> Messaging:
        if not kafetrain_broker.is_real:
            pytest.skip("needs Apache Kafka: a mock has no compaction")
        return KafkaMessaging(
            bootstrap_servers=kafetrain_broker.bootstrap_servers,
            client_options=kafetrain_broker.client_options,
            backoff=ConstantBackoff(timedelta(milliseconds=20)),
        )

    @pytest.fixture
    def topic(self, kafetrain_topic: TopicFactory) -> str:
        return kafetrain_topic(2, prefix="messages")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


class TestRedisStreams(MessagingContract):
    @pytest.fixture
    def messaging(self, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.syspath_prepend(str(EXAMPLES))
        return importlib.import_module("redis_streams").RedisStreams(f"redis://{server.address}")

    @pytest.fixture
    def topic(self) -> str:
        return f"messages-{uuid.uuid4().hex[:8]}"
