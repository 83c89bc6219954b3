"""The service's settings, from the environment. Read once, checked, and passed on."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from kafetrain.durations import parse_duration, parse_size
from kafetrain.errors import ConfigurationError

__all__ = ["ServiceSettings"]


def _list(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _servers(value: object) -> object:
    found = _list(value)
    for one in found if isinstance(found, tuple | list) else ():
        host, colon, port = str(one).rpartition(":")
        if not (host and colon and port.isdigit()):
            raise ValueError(f"{one!r} is not host:port")
    return found


def _pairs(value: object) -> object:
    """`client=secret`, several with commas. A secret must not be shown, not even where it is wrong."""
    if not isinstance(value, str):
        return value
    found: dict[str, str] = {}
    for number, part in enumerate(filter(None, (part.strip() for part in value.split(","))), 1):
        name, equals, secret = part.partition("=")
        if not (name and equals and secret):
            raise ValueError(f"entry {number} is not client=secret")
        found[name] = secret
    return found


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_list)]
Servers = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_servers)]
Keys = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_list)]
Size = Annotated[int, BeforeValidator(parse_size)]


class ServiceSettings(BaseSettings):
    """Each field is the environment variable of its name in capitals. Raises `ConfigurationError`."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, env_ignore_empty=True)

    http_host: str = "127.0.0.1"
    http_port: int = Field(8080, ge=0, le=65_535)
    environment: Annotated[Literal["dev", "prod"], BeforeValidator(_lower)] = "dev"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = "info"

    store_url: str | None = None
    redis_addr: Servers | None = None
    redis_password: SecretStr | None = None
    redis_db: int | None = Field(None, ge=0)
    redis_pool_size: int = Field(100, ge=1)
    redis_sentinel_master: str | None = None
    redis_cluster: bool = False

    kafka_brokers: Servers = ("localhost:9092",)
    allowed_brokers: Servers = ()
    allowed_http_hosts: Names = ()
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] | None = None
    kafka_sasl_mechanism: str | None = None
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_ssl_cafile: str | None = None
    kafka_compression: Annotated[Literal["none", "gzip", "snappy", "lz4", "zstd"], BeforeValidator(_lower)] = "none"
    kafka_batch_size: Size = Field(65_536, ge=1)
    kafka_concurrency: int = Field(1000, ge=1)

    http_concurrency: int = Field(10, ge=1)
    http_timeout: Duration = Field(timedelta(seconds=30), gt=timedelta(0))
    signing_secrets: Annotated[dict[str, SecretStr], NoDecode, BeforeValidator(_pairs)] = Field(default_factory=dict)

    workers: int = Field(2000, ge=1, le=100_000)
    poll_interval: Duration = Field(timedelta(seconds=1), ge=timedelta(milliseconds=10), le=timedelta(hours=1))
    lease: Duration = Field(timedelta(seconds=15), ge=timedelta(seconds=1), le=timedelta(hours=1))
    shutdown_timeout: Duration = Field(timedelta(seconds=10), ge=timedelta(0))
    retention: Duration = Field(timedelta(days=1), ge=timedelta(0))
    dead_retention: Duration = Field(timedelta(days=30), ge=timedelta(0))

    submit_keys: Keys = ()
    admin_keys: Keys = ()
    max_body_bytes: Size = Field(1024 * 1024, ge=1024)
    max_batch_bytes: Size = Field(32 * 1024 * 1024, ge=1024)
    max_bodies_bytes: Size = Field(256 * 1024 * 1024, ge=1024)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            problems = [
                f"{'.'.join(str(part) for part in one['loc'][:1]).upper() or 'settings'}: "
                f"{one['msg'].removeprefix('Value error, ')}"
                for one in error.errors(include_input=False, include_url=False)
            ]
            raise ConfigurationError("; ".join(problems)) from None

    @field_validator("kafka_compression")
    @classmethod
    def _installed(cls, value: str) -> str:
        from kafetrain.client.kafka_python_publisher import what_is_missing  # slow, and most services need no Kafka

        if missing := what_is_missing(value):
            raise ValueError(f"{value} {missing}")
        return value

    @model_validator(mode="after")
    def _check(self) -> ServiceSettings:
        if self.store_url is not None and self._names_redis() and self.store_scheme not in ("redis", "rediss"):
            raise ValueError("STORE_URL names no Redis, but REDIS_ADDR, REDIS_PASSWORD or REDIS_DB is set; unset them")
        if self.redis_cluster and self.redis_sentinel_master:
            raise ValueError("REDIS_CLUSTER and REDIS_SENTINEL_MASTER exclude each other")
        if self.submit_keys and not self.admin_keys:
            raise ValueError("SUBMIT_KEYS without ADMIN_KEYS would leave the admin calls open; set ADMIN_KEYS too")
        if self.max_bodies_bytes < max(self.max_body_bytes, self.max_batch_bytes):
            raise ValueError("MAX_BODIES_BYTES must be at least MAX_BODY_BYTES and MAX_BATCH_BYTES: one has to fit")
        return self

    def _names_redis(self) -> bool:
        return not (self.redis_addr is None and self.redis_password is None and self.redis_db is None)

    @property
    def store_scheme(self) -> str:
        """What comes before `://` in STORE_URL: the name of the store's entry point."""
        if self.store_url is not None:
            return self.store_url.partition("://")[0].lower()
        return "redis" if self._names_redis() or self.redis_cluster or self.redis_sentinel_master else "sqlite"

    @property
    def allows_loopback(self) -> bool:
        """Webhooks on this machine: only where nobody else can ask for them."""
        if self.environment != "dev":
            return False
        try:
            return ipaddress.ip_address(self.http_host.strip("[]")).is_loopback
        except ValueError:
            return self.http_host == "localhost"
