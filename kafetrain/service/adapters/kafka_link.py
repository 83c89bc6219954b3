"""One Kafka cluster: a producer, and the thread that feeds it.

The producer may block while it waits for metadata or a broker, so it is not for the event loop. It is kafetrain's own,
which knows how to replace a kafka-python producer that has stopped working.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
import zlib
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

from loguru import logger
from pydantic import SecretStr

from kafetrain.client.kafka_python import KafkaPythonClient
from kafetrain.client.ports import AdminPort, ClientError, OutgoingRecord, ProducerPort
from kafetrain.service.ports.destination import DeliveryError

__all__ = ["KafkaConnection", "KafkaLink", "Message"]

TOPIC_AGE_S = 60.0
NO_TOPIC_AGE_S = 1.0
AWAY_S = 1.0
"""After no broker answered: how long everything fails at once."""


@dataclass(frozen=True)
class KafkaConnection:
    """What `KafkaPythonClient` reads."""

    bootstrap_servers: tuple[str, ...]
    client_options: Mapping[str, Any] = field(default_factory=dict)
    security_protocol: str | None = None
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    topic: str
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


class KafkaLink:
    """Made in the event loop that calls it. The thread connects, and connects again after a failure."""

    def __init__(self, connection: KafkaConnection) -> None:
        self.used_at = time.monotonic()
        self.open = 0
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[tuple[Message, asyncio.Future[None]] | None] = queue.SimpleQueue()
        self._ended: deque[tuple[asyncio.Future[None], Exception | None]] = deque()
        self._is_told = False
        self._producer: ProducerPort | None = None
        self._admin: AdminPort | None = None
        self._away: tuple[float, DeliveryError] | None = None
        self._partitions: dict[str, tuple[int, float]] = {}
        self._thread = threading.Thread(target=self._run, name="kafetrain-service-kafka", daemon=True)
        self._thread.start()

    async def send(self, message: Message) -> None:
        """Returns once all in-sync replicas have it; `DeliveryError` where they do not in time."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self.open += 1
        try:
            self._queue.put((message, waiter))
            await waiter
        finally:
            self.open -= 1
            self.used_at = time.monotonic()

    async def close(self) -> None:
        self._queue.put(None)
        await self._loop.run_in_executor(None, self._thread.join, 10.0)

    # On the thread

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            message, waiter = item
            try:
                sent = self._producer_now().send(
                    OutgoingRecord(message.topic, self._partition(message), message.key, message.value, message.headers)
                )
            except DeliveryError as error:
                self._end(waiter, error)
            except ClientError as error:
                self._end(waiter, _failure(error))
            except Exception as error:
                logger.opt(exception=True).error("a message could not be handed to kafka")
                self._end(waiter, DeliveryError(f"unexpected {type(error).__name__}"))
            else:
                sent.add_done_callback(partial(self._sent, waiter))
        self._disconnect()

    def _producer_now(self) -> ProducerPort:
        if self._producer is not None:
            return self._producer
        if self._away is not None and time.monotonic() < self._away[0]:
            raise self._away[1]
        try:
            client = KafkaPythonClient(self._connection)
            self._admin = client.admin()
            self._producer = client.producer()
        except ClientError as error:
            self._disconnect()
            failure = _failure(error)
            self._away = (time.monotonic() + AWAY_S, failure)
            raise failure from None
        self._away = None
        return self._producer

    def _partition(self, message: Message) -> int:
        """Every attempt has a key of its own, so any even spread will do."""
        count, until = self._partitions.get(message.topic, (0, 0.0))
        if time.monotonic() > until:
            assert self._admin is not None
            found = self._admin.describe_topics([message.topic])
            count = found[message.topic].partitions if message.topic in found else 0
            age_s = TOPIC_AGE_S if count else NO_TOPIC_AGE_S
            self._partitions[message.topic] = (count, time.monotonic() + age_s)
        if not count:
            raise DeliveryError(f"topic {message.topic} does not exist at {self._connection.bootstrap_servers[0]}")
        return zlib.crc32(message.key) % count

    def _disconnect(self) -> None:
        for client in (self._producer, self._admin):
            try:
                if client is self._producer and self._producer is not None:
                    self._producer.close(timedelta(seconds=5))
                elif client is not None and self._admin is not None:
                    self._admin.close()
            except Exception as error:
                logger.debug("closing a kafka client: {}", type(error).__name__)
        self._producer = self._admin = None

    def _sent(self, waiter: asyncio.Future[None], sent: Future[int]) -> None:
        error = sent.exception()
        if isinstance(error, ClientError):
            # Appended, though nobody knows where: it is durable.
            self._end(waiter, None if "appended, but nobody tells" in str(error) else _failure(error))
        else:
            self._end(waiter, None if error is None else DeliveryError(f"unexpected {type(error).__name__}"))

    # Across threads: many ends share one wake-up of the event loop

    def _end(self, waiter: asyncio.Future[None], error: Exception | None) -> None:
        self._ended.append((waiter, error))
        if not self._is_told:
            self._is_told = True
            try:
                self._loop.call_soon_threadsafe(self._settle)
            except RuntimeError:  # the loop is closed, and nobody waits any more
                pass

    def _settle(self) -> None:
        self._is_told = False  # before the look: what is added from now on tells again
        while self._ended:
            waiter, error = self._ended.popleft()
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)


def _failure(error: ClientError) -> DeliveryError:
    text = str(error).split("\n", 1)[0][:300]
    return DeliveryError(text, reached=not error.retriable)
