"""What is the same for every client: what it reads of the settings, and how long things may take."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any, Protocol

from pydantic import SecretStr

__all__ = [
    "BOOTSTRAP_TIMEOUT_MS",
    "DELIVERY_TIMEOUT_MS",
    "MAX_BLOCK_MS",
    "MAX_POLL_INTERVAL_MS",
    "MAX_REQUEST_BYTES",
    "OPTION_NAMES",
    "REQUEST_TIMEOUT_MS",
    "SESSION_TIMEOUT_MS",
    "TRANSACTION_TIMEOUT_MS",
    "ConnectionSettings",
    "given_options",
]

SESSION_TIMEOUT_MS = 45_000
"""After this time without a heartbeat a member's partitions go to others."""

MAX_POLL_INTERVAL_MS = 300_000
"""After this time without a poll as well."""

DELIVERY_TIMEOUT_MS = SESSION_TIMEOUT_MS * 8 // 10
"""Within this time a write is durable or has failed: before the partition that it belongs to can have a new owner."""

REQUEST_TIMEOUT_MS = DELIVERY_TIMEOUT_MS // 2
"""Of producers and admin clients. Half, so that a write is tried a second time when a broker has gone silent."""

TRANSACTION_TIMEOUT_MS = 10_000
"""After this time the brokers abort a transaction whose producer is gone; readers wait for that."""

BOOTSTRAP_TIMEOUT_MS = 10_000
MAX_BLOCK_MS = 10_000
MAX_REQUEST_BYTES = 64 * 1024 * 1024
"""Far above any topic's limit, which is the one that counts: the client would compare before it compresses."""


OPTION_NAMES = {
    "kafka-python": {
        "security_protocol": "security_protocol",
        "sasl_mechanism": "sasl_mechanism",
        "sasl_username": "sasl_plain_username",
        "sasl_password": "sasl_plain_password",
        "ssl_cafile": "ssl_cafile",
        "ssl_certfile": "ssl_certfile",
        "ssl_keyfile": "ssl_keyfile",
    },
    "confluent": {
        "security_protocol": "security.protocol",
        "sasl_mechanism": "sasl.mechanism",
        "sasl_username": "sasl.username",
        "sasl_password": "sasl.password",
        "ssl_cafile": "ssl.ca.location",
        "ssl_certfile": "ssl.certificate.location",
        "ssl_keyfile": "ssl.key.location",
    },
}
"""Typed settings, by the names that the clients have for the same thing."""


class ConnectionSettings(Protocol):
    """What is read of the settings."""

    @property
    def bootstrap_servers(self) -> Sequence[str]: ...
    @property
    def client_options(self) -> Mapping[str, Any]: ...
    @property
    def security_protocol(self) -> str | None: ...
    @property
    def sasl_mechanism(self) -> str | None: ...
    @property
    def sasl_username(self) -> str | None: ...
    @property
    def sasl_password(self) -> SecretStr | None: ...
    @property
    def ssl_cafile(self) -> str | None: ...
    @property
    def ssl_certfile(self) -> str | None: ...
    @property
    def ssl_keyfile(self) -> str | None: ...


def given_options(settings: ConnectionSettings, client: str, owned: Container[str]) -> dict[str, Any]:
    """The user's options by the client's names, the typed ones among them; without those that are ours to set."""
    options = {name: value for name, value in settings.client_options.items() if name not in owned}
    for setting, option in OPTION_NAMES[client].items():
        value = getattr(settings, setting)
        if value is not None:
            options[option] = value.get_secret_value() if isinstance(value, SecretStr) else value
    return options
