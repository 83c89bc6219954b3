"""Managed producers without a broker: what is refused, and what becomes of callbacks when nobody answers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from kafetrain import ConfigurationError
from kafetrain.client.ports import ClientError
from kafetrain.managed import ManagedProducer, Metadata, ProducerConfig, Registry
from tests.waiting import wait_for


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def producer(address: str = "127.0.0.1:1", **changes: Any) -> ManagedProducer:
    return ManagedProducer(ProducerConfig(**{"bootstrap_servers": address, "enable_async": True, **changes}))


def test_the_defaults() -> None:
    config = ProducerConfig()
    assert (config.enable_sync, config.enable_async, config.required_acks) == (True, False, "all")
    assert (config.compression, config.idempotent, config.max_message_bytes) == ("none", None, 1024 * 1024)
    assert config.options()["retries"] == 3
    assert config.options()["retry_backoff_ms"] == 100
    assert "enable_idempotence" not in config.options()


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"enable_sync": False}, "nothing could be sent"),
        ({"idempotent": True, "required_acks": 1}, "idempotent needs required_acks all"),
        ({"idempotent": True, "max_retries": 0}, "idempotent needs max_retries"),
        ({"compression": "brotli"}, "'none', 'gzip', 'snappy', 'lz4' or 'zstd'"),
        ({"required_acks": 2}, "'all', 'leader' or 'none'"),
        ({"retry_backof": 1}, "did you mean retry_backoff"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigurationError, match=part):
        ProducerConfig(**changes)


def test_it_logs_in_as_an_environment_for_confluent_says(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("confluent_kafka")
    for name, text in {
        "CLIENT": "confluent",
        "BOOTSTRAP_SERVERS": "there:1",
        "SECURITY_PROTOCOL": "SASL_SSL",
        "SASL_MECHANISM": "SCRAM-SHA-512",
        "SASL_USERNAME": "me",
        "SASL_PASSWORD": "hunter2",
        "SSL_CAFILE": "ca.pem",
        "CLIENT_OPTIONS": '{"ssl.endpoint.identification.algorithm": "none", "linger.ms": 5}',
    }.items():
        monkeypatch.setenv(f"KAFETRAIN_{name}", text)
    settings = ProducerConfig(client_options={"linger_ms": 7}, delivery_timeout="3s").settings()
    assert (settings.client, settings.bootstrap_servers) == ("kafka-python", ["there:1"])
    assert (settings.security_protocol, settings.sasl_mechanism) == ("SASL_SSL", "SCRAM-SHA-512")
    assert (settings.sasl_username, settings.ssl_cafile) == ("me", "ca.pem")
    assert settings.sasl_password is not None
    assert settings.sasl_password.get_secret_value() == "hunter2"
    assert settings.client_options == {"bootstrap_timeout_ms": 3000, "ssl_check_hostname": False, "linger_ms": 7}


def test_what_is_not_enabled_says_how_to_enable_it() -> None:
    with pytest.raises(ConfigurationError, match="enable_async=True"):
        producer(enable_async=False).send_async("orders", None, b"")
    with pytest.raises(ConfigurationError, match="enable_sync=True"):
        producer(enable_sync=False).send("orders", None, b"")


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"key": None, "value": None}, "neither key nor value"),
        ({"key": b"", "value": {"a": 1}}, "value must be text or bytes, not dict"),
        ({"key": 7, "value": b""}, "key must be text or bytes"),
        ({"key": None, "value": b"", "headers": {"h": None}}, "header h must be text or bytes"),
        ({"key": None, "value": b"", "headers": [(1, b"")]}, "name of a header must be text"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_anything_is_connected(given: dict[str, Any], part: str) -> None:
    for send in (producer().send, producer().send_async):
        with pytest.raises(ConfigurationError, match=part):
            send("orders", **given)


def test_with_a_dead_broker_memory_is_bounded_send_async_waits_its_bound_and_no_callback_is_lost(nobody: str) -> None:
    ended: list[tuple[Metadata | None, Exception | None]] = []
    dead = producer(nobody, max_pending=5, max_block="100ms", delivery_timeout="1s")
    slowest = 0.0
    for _ in range(8):
        began = time.monotonic()
        dead.send_async("orders", b"k", b"v", callback=lambda metadata, error: ended.append((metadata, error)))
        slowest = max(slowest, time.monotonic() - began)
        assert dead._pending <= 5
    assert slowest < 1.0, "the bound is 0.1 s; the rest is for a busy machine"
    dead.close(0.1)
    assert len(ended) == 8
    assert all(metadata is None and isinstance(error, ClientError) for metadata, error in ended)
    dead.send_async("orders", b"k", b"v", callback=lambda metadata, error: ended.append((metadata, error)))
    assert "is closed" in str(ended[-1][1])
    with pytest.raises(ConfigurationError, match="is closed"):
        dead.send("orders", b"k", b"v")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("kafetrain-")]


def test_a_large_record_goes_when_it_is_alone_and_a_raising_callback_costs_no_other(nobody: str) -> None:
    ended = []
    dead = producer(nobody, max_pending_bytes=1024, max_block="50ms", delivery_timeout="200ms")

    def callback(metadata: Metadata | None, error: Exception | None) -> None:
        ended.append(error)
        raise ValueError

    dead.send_async("orders", None, b"x" * 5000, callback=callback)
    dead.send_async("orders", None, b"y", callback=callback)
    wait_for("both have ended", lambda: len(ended) == 2, timeout=90)
    assert dead.flush(10)
    dead.close()


def test_a_registry_knows_its_producers_by_name_and_closes_them() -> None:
    registry = Registry()
    first = registry.register_producer(ProducerConfig(name="invoices"))
    assert registry.producer("invoices") is first
    with pytest.raises(ConfigurationError, match="producer name 'invoices' is taken"):
        registry.register_producer(ProducerConfig(name="invoices"))
    with pytest.raises(ConfigurationError, match="'invoice'; did you mean invoices"):
        registry.producer("invoice")
    registry.stop()
    assert registry.wait_stop(5)
    with pytest.raises(ConfigurationError, match="is closed"):
        first.send("orders", None, b"")
