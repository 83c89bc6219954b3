"""Services and webhooks that end with their test."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.service.harness import Answer, Hit, Service, Webhook
from tests.redis_server import RedisServer

StartService = Callable[..., Service]
StartWebhook = Callable[..., Webhook]


@pytest.fixture
def closing() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def start_service(tmp_path: Path, closing: contextlib.ExitStack) -> StartService:
    def start(**settings: str) -> Service:
        service = Service(tmp_path, **settings)
        closing.callback(service.close)
        return service.start()

    return start


@pytest.fixture
def start_webhook(closing: contextlib.ExitStack) -> StartWebhook:
    def start(answer: Callable[[Hit], Answer] | None = None, tls: ssl.SSLContext | None = None) -> Webhook:
        webhook = Webhook(answer, tls)
        closing.callback(webhook.close)
        return webhook

    return start


@pytest.fixture
def durable_redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One for all tests of a module, on SQLite."""
    service = Service(tmp_path_factory.mktemp("service"), ALLOWED_HTTP_HOSTS="allowed.example")
    try:
        yield service.start()
    finally:
        service.close()


@pytest.fixture(scope="module")
def webhook() -> Iterator[Webhook]:
    webhook = Webhook()
    yield webhook
    webhook.close()
