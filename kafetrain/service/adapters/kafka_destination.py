"""Kafka topics: the message as value, `<id>|<attempt>` as key, acknowledged by all in-sync replicas."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from typing import Any

from kafetrain.service.adapters.kafka_link import KafkaConnection, KafkaLink, Message
from kafetrain.service.domain.task import Address
from kafetrain.service.ports.destination import Delivery, DeliveryError, RefusedError
from kafetrain.service.settings import ServiceSettings

__all__ = ["KafkaDestination"]

DELIVERY_TIMEOUT_MS, REQUEST_TIMEOUT_MS, MAX_BLOCK_MS = 20_000, 8_000, 5_000
GIVEN_UP_S = 40.0
"""Longer than a link can take to say how it went; a lost answer must not hold a worker for ever."""

IDLE_S, LOOK_EVERY_S = 300.0, 10.0
TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
HOST = re.compile(r"[A-Za-z0-9._:-]{1,253}")


class KafkaDestination:
    """The entry point `kafka`. One producer for each broker address, closed when nobody has used it for 5 minutes."""

    def __init__(
        self, settings: ServiceSettings, *, idle_s: float = IDLE_S, look_every_s: float = LOOK_EVERY_S
    ) -> None:
        self.concurrency = settings.kafka_concurrency
        self._settings = settings
        self._allowed = frozenset((*settings.kafka_brokers, *settings.allowed_brokers))
        self._idle_s, self._look_every_s = idle_s, look_every_s
        self._links: dict[str, KafkaLink] = {}
        self._closer: asyncio.Task[None] | None = None

    def address(self, given: Mapping[str, Any]) -> Address:
        if unknown := given.keys() - {"host", "port", "topic"}:
            raise ValueError(f"{min(unknown)} means nothing for kafka")
        for name in ("host", "port", "topic"):
            if given.get(name) in (None, ""):
                raise ValueError(f"{name} is required")
        host, topic, port = given["host"], given["topic"], _port(given["port"])
        if not isinstance(host, str) or not HOST.fullmatch(host):
            raise ValueError("host is not a host name")
        if not isinstance(topic, str) or not TOPIC.fullmatch(topic) or topic in (".", ".."):
            raise ValueError("topic must be 1 to 249 letters, digits, '.', '_' or '-'")
        if f"{host}:{port}" not in self._allowed:
            raise RefusedError(f"{host}:{port} is neither in KAFKA_BROKERS nor in ALLOWED_BROKERS")
        return {"host": host, "port": port, "topic": topic}

    def check_message(self, message_data: str) -> None:
        pass

    def lane(self, address: Address) -> str:
        return f"kafka://{address['host']}:{address['port']}/{address['topic']}"

    async def open(self) -> None:
        self._closer = asyncio.create_task(self._close_idle())

    async def close(self) -> None:
        if self._closer is not None:
            self._closer.cancel()
        links, self._links = list(self._links.values()), {}
        await asyncio.gather(*(link.close() for link in links))

    async def deliver(self, delivery: Delivery) -> int | None:
        server = f"{delivery.address['host']}:{delivery.address['port']}"
        if server not in self._allowed:
            raise DeliveryError(f"{server} is neither in KAFKA_BROKERS nor in ALLOWED_BROKERS")
        link = self._links.get(server)
        if link is None:
            link = self._links[server] = KafkaLink(self._connection(server))
        headers = (("traceparent", delivery.trace.encode()),) if delivery.trace else ()
        message = Message(
            str(delivery.address["topic"]), delivery.key.encode(), delivery.message_data.encode(), headers
        )
        try:
            await asyncio.wait_for(link.send(message), GIVEN_UP_S)
        except asyncio.TimeoutError:
            raise DeliveryError(f"{server} has not answered within {GIVEN_UP_S:g} s", reached=False) from None
        return None

    async def _close_idle(self) -> None:
        while True:
            await asyncio.sleep(self._look_every_s)
            idle_since = time.monotonic() - self._idle_s
            for server, link in list(self._links.items()):
                if not link.open and link.used_at < idle_since:
                    del self._links[server]
                    await link.close()

    def _connection(self, server: str) -> KafkaConnection:
        settings = self._settings
        return KafkaConnection(
            (server,),
            {
                "delivery_timeout_ms": DELIVERY_TIMEOUT_MS,
                "request_timeout_ms": REQUEST_TIMEOUT_MS,
                "bootstrap_timeout_ms": MAX_BLOCK_MS,
                "max_block_ms": MAX_BLOCK_MS,
                "compression_type": None if settings.kafka_compression == "none" else settings.kafka_compression,
                "batch_size": settings.kafka_batch_size,
                "linger_ms": 2,
            },
            settings.kafka_security_protocol,
            settings.kafka_sasl_mechanism,
            settings.kafka_sasl_username,
            settings.kafka_sasl_password,
            settings.kafka_ssl_cafile,
        )


def _port(given: object) -> int:
    text = str(given) if isinstance(given, int | str) and not isinstance(given, bool) else ""
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65_535):
        raise ValueError("port must be a number from 1 to 65535")
    return int(text)
