"""Encrypted connections: to webhooks, to Redis, to Kafka. Certificates of strangers are refused."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.integration.security.secured import Right, secured_broker
from tests.integration.service.conftest import StartService, StartWebhook
from tests.integration.service.harness import Service, http_task
from tests.integration.service.test_kafka_delivery import kafka_task
from tests.redis_server import RedisServer


class Authority:
    """One that nobody knows by himself; `file` makes it known."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._ca, self.file = trustme.CA(), str(folder / "ca.pem")
        self._ca.cert_pem.write_to_path(self.file)

    def server(self, name: str = "127.0.0.1") -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(name).configure_cert(context)
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextlib.contextmanager
def tls_in_front_of(port: int, context: ssl.SSLContext) -> Iterator[int]:
    """The port of something that takes encrypted connections and hands on what is in them."""
    started, loop = threading.Event(), asyncio.new_event_loop()
    ports: list[int] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inside, to_inside = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, to_inside), copy(inside, writer))

    async def serve() -> None:
        server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
        ports.append(server.sockets[0].getsockname()[1])
        started.set()

    def run() -> None:
        loop.set_exception_handler(lambda loop, context: None)  # handshakes that fail are what is tested
        loop.run_until_complete(serve())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(30)
    yield ports[0]
    loop.call_soon_threadsafe(loop.stop)
    thread.join(30)


def test_a_webhook_with_a_certificate_of_ones_own(
    start_service: StartService, start_webhook: StartWebhook, authority: Authority, tmp_path: Path
) -> None:
    trusted = start_webhook(tls=authority.server())
    strangers = {
        "another name": start_webhook(tls=authority.server("another.example")),
        "another authority": start_webhook(tls=Authority(tmp_path / "elsewhere").server()),
    }
    service = start_service(SSL_CERT_FILE=authority.file)
    service.create(http_task("trusted", trusted.url()))
    for id, webhook in strangers.items():
        service.create(http_task(id, webhook.url(), max_retries=1))
    assert service.wait_for_state("trusted", "delivered")["attempts"][0]["status"] == 200
    for id, webhook in strangers.items():
        attempt = service.wait_for_state(id, "dead")["attempts"][0]
        assert attempt["error"].startswith("no connection: its certificate is not trusted: "), attempt
        assert webhook.hits == []


def test_redis_over_tls(start_service: StartService, start_webhook: StartWebhook, authority: Authority) -> None:
    redis = RedisServer(Path(authority.file).parent / "redis", password="geheim")
    redis.start()
    webhook = start_webhook()
    try:
        with tls_in_front_of(redis.port, authority.server()) as port:
            url = f"rediss://:geheim@127.0.0.1:{port}/1"
            service = start_service(STORE_URL=url, SSL_CERT_FILE=authority.file)
            service.create(http_task("through", webhook.url()))
            service.wait_for_state("through", "delivered")
            assert "geheim" not in service.log_text()
            service.stop()
            refused = Service(service.folder / "refused", STORE_URL=url)
            assert refused.spawn().wait(60) == 1
            assert "failed to create redis client: " in refused.log_text()
            assert "certificate verify failed" in refused.log_text()
            assert "geheim" not in refused.log_text()
            refused.close()
    finally:
        redis.stop()


@pytest.mark.kafka
def test_kafka_with_a_login_over_tls(start_service: StartService, tmp_path: Path) -> None:
    with secured_broker(tmp_path) as secured:
        secured.add_user("billing", "geheim")
        secured.allow("billing", [Right("topic", "*", name) for name in ("Write", "Describe")])
        topic = secured.broker.create_unique_topic(1)
        server = secured.broker.addresses["SCRAM_TLS"]
        login = {
            "KAFKA_BROKERS": server,
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
            "KAFKA_SASL_USERNAME": "billing",
            "KAFKA_SSL_CAFILE": str(secured.certificates.authority),
        }
        service = start_service(**login, KAFKA_SASL_PASSWORD="geheim")
        service.create(kafka_task("logged in", server, topic, topic))
        service.wait_for_state("logged in", "delivered")
        service.stop()
        service = start_service(**login, KAFKA_SASL_PASSWORD="falsch")
        service.create(kafka_task("refused", server, topic, topic, max_retries=1))
        assert "sasl" in service.wait_for_state("refused", "dead")["attempts"][0]["error"].lower()
        assert "falsch" not in service.log_text()
