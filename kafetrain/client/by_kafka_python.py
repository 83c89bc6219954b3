"""The brokers and the login that librdkafka's options describe, by kafka-python's names: for what only it can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from kafetrain.client.connection import ConnectionSettings, given_options

if TYPE_CHECKING:
    from kafetrain.settings import Settings

__all__ = ["ByKafkaPython", "by_kafka_python"]

_HOSTNAMES = "ssl.endpoint.identification.algorithm"


class ByKafkaPython:
    """`ConnectionSettings` for kafka-python, out of librdkafka's options."""

    def __init__(self, bootstrap_servers: list[str], options: Mapping[str, Any]) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.security_protocol: str | None = options.get("security.protocol")
        self.sasl_mechanism: str | None = options.get("sasl.mechanism", options.get("sasl.mechanisms"))
        self.sasl_username: str | None = options.get("sasl.username")
        password = options.get("sasl.password")
        self.sasl_password = None if password is None else SecretStr(password)
        self.ssl_cafile: str | None = options.get("ssl.ca.location")
        self.ssl_certfile: str | None = options.get("ssl.certificate.location")
        self.ssl_keyfile: str | None = options.get("ssl.key.location")
        more = {
            "client_id": options.get("client.id"),
            "ssl_password": options.get("ssl.key.password"),
            "ssl_check_hostname": None if options.get(_HOSTNAMES, "https") == "https" else False,
        }
        self.client_options: Mapping[str, Any] = {name: value for name, value in more.items() if value is not None}


def by_kafka_python(settings: Settings) -> ConnectionSettings:
    """The settings as kafka-python takes them, whichever client they are for."""
    if settings.client != "confluent":
        return settings
    return ByKafkaPython(settings.bootstrap_servers, given_options(settings, "confluent", ()))
