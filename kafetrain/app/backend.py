"""Where an app's records come from and go to: Kafka, or in tests a cluster in memory."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from kafetrain.client.by_kafka_python import by_kafka_python
from kafetrain.client.kafka_python_cluster import ClusterClient
from kafetrain.client.ports import Client
from kafetrain.managed import ManagedProducer, Metadata, ProducerConfig
from kafetrain.managed.producer import Callback, GivenHeaders
from kafetrain.record import Middleware
from kafetrain.settings import Settings

__all__ = ["Backend", "KafkaBackend", "Sender"]


class Sender(Protocol):
    """As much of a `ManagedProducer` as an app needs."""

    def send(
        self, topic: str, key: str | bytes | None, value: str | bytes | None, headers: GivenHeaders = ()
    ) -> Metadata: ...

    def send_async(
        self,
        topic: str,
        key: str | bytes | None,
        value: str | bytes | None,
        headers: GivenHeaders = (),
        callback: Callback | None = None,
    ) -> None: ...

    def close(self, timeout: float | None = None) -> None: ...


class Backend(Protocol):
    """Of one app. `middlewares` stand around all of its own."""

    middlewares: tuple[Middleware, ...]

    def topic_names(self, settings: Settings) -> Collection[str]: ...

    def adapted(self, settings: Settings) -> Settings: ...

    def client(self) -> Client | None:
        """None: the settings say which."""

    def sender(self, settings: Settings) -> Sender: ...


class KafkaBackend:
    """The real one."""

    middlewares: tuple[Middleware, ...] = ()

    def topic_names(self, settings: Settings) -> Collection[str]:
        return ClusterClient(by_kafka_python(settings)).topic_names()

    def adapted(self, settings: Settings) -> Settings:
        return settings

    def client(self) -> Client | None:
        return None

    def sender(self, settings: Settings) -> Sender:
        return ManagedProducer(ProducerConfig(name=settings.group_id, enable_async=True), settings)
