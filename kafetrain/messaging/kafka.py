"""The protocols on Kafka: a managed producer, and consumers with ordered retries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kafetrain.consumer import KafkaConsumer, ResilientConsumer
from kafetrain.errors import ConfigurationError
from kafetrain.managed import ManagedProducer, ProducerConfig
from kafetrain.messaging.protocols import Consumer, Handler, Message, Producer
from kafetrain.settings import Settings

__all__ = ["KafkaMessaging"]


class KafkaMessaging:
    """A `Messaging`. `settings`: as those of `Settings`, but for the group. Raises `ConfigurationError`."""

    def __init__(self, **settings: Any) -> None:
        self._settings = settings
        self._checked = Settings(**{"group_id": "none", **settings})

    def producer(self) -> Producer:
        return _Producer(ManagedProducer(ProducerConfig(), self._checked))

    def consumer(self, group: str) -> Consumer:
        return _Consumer(Settings(**{**self._settings, "group_id": group}))


class _Producer:
    def __init__(self, producer: ManagedProducer) -> None:
        self._producer = producer

    def publish(self, message: Message) -> None:
        self._producer.send(message.topic, message.key, message.value, message.headers)

    def close(self) -> None:
        self._producer.close()


class _Consumer:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._running: ResilientConsumer | None = None

    def start(self, topics: Sequence[str], handler: Handler) -> None:
        if self._running is not None:
            raise ConfigurationError("this consumer was started already; ask for another one")
        self._running = KafkaConsumer.resilient(self._settings, topics, handler)
        self._running.start()

    def stop(self) -> None:
        if self._running is not None:
            self._running.stop()
