"""A declared consumer, built from the layers: plain, or with ordered retries."""

from __future__ import annotations

from collections.abc import Callable

from kafetrain.client.kafka_python_declared import DeclaredClient
from kafetrain.client.ports import Client
from kafetrain.clock import Clock
from kafetrain.consumer import KafkaConsumer
from kafetrain.managed.config import ConsumerConfig
from kafetrain.managed.job import Engine
from kafetrain.managed.paced import paced
from kafetrain.managed.watch import HandlerWatch
from kafetrain.record import Handler, Middleware
from kafetrain.settings import Settings

__all__ = ["build_engine"]


def build_engine(config: ConsumerConfig, handler: Handler, clock: Clock, on_success: Callable[[], None]) -> Engine:
    """For one run. Connects to nothing yet; raises `ConfigurationError`."""
    settings = config.settings()
    limit_s = config.max_processing_time.total_seconds()
    watch = HandlerWatch(limit_s, clock, on_success, keep_failures=config.auto_commit)
    client = paced(_declared_client(config, settings), config.group_id, watch.overdue, clock)
    middlewares: list[Middleware] = [watch, *config.middlewares]
    if config.retry is not None:
        return KafkaConsumer.resilient(
            settings,
            config.topic,
            handler,
            middlewares=middlewares,
            on_dead_letter=config.on_dead_letter,
            client=client,
        )
    consumer = KafkaConsumer(settings, client=client).with_middlewares(*middlewares)
    return _Plain(consumer, config.topic, handler, watch)


def _declared_client(config: ConsumerConfig, settings: Settings) -> Client:
    declared = config.group_id, config.balance_strategies, config.isolation_level
    if settings.client == "confluent":
        from kafetrain.client.confluent_declared import DeclaredConfluentClient  # its library may not be installed

        return DeclaredConfluentClient(settings, *declared)
    return DeclaredClient(settings, *declared)


class _Plain:
    def __init__(self, consumer: KafkaConsumer, topics: list[str], handler: Handler, watch: HandlerWatch) -> None:
        self._consumer, self._topics, self._handler, self._watch = consumer, topics, handler, watch

    def start(self) -> None:
        self._consumer.start(self._topics, self._handler)

    def check(self) -> None:
        self._consumer.check()
        if self._watch.failure is not None:  # of a record that is committed all the same
            raise self._watch.failure

    def stop(self) -> None:
        self._consumer.stop()
