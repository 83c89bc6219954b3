"""What a managed producer is declared to be."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from kafetrain.client.by_kafka_python import by_kafka_python
from kafetrain.client.connection import OPTION_NAMES
from kafetrain.client.kafka_python_publisher import Compression, what_is_missing
from kafetrain.durations import parse_size
from kafetrain.managed.declared import Count, Declared, Duration, Name, Servers
from kafetrain.settings import Settings

__all__ = ["ProducerConfig"]

ANSWER_TIMEOUT_MS = 10_000

_ACKS = {"-1": "all", "1": "leader", "0": "none"}


class ProducerConfig(Declared):
    """One producer of a service. Raises `ConfigurationError` with every field that cannot be."""

    name: Name = "default"
    """What the registry calls it. No two of a registry have the same."""

    bootstrap_servers: Servers | None = None
    """Brokers to ask first. None: `KAFETRAIN_BOOTSTRAP_SERVERS`, or localhost:9092."""

    client: Literal["kafka-python"] = "kafka-python"
    """Producers are kafka-python's, whichever client consumers have."""

    enable_sync: bool = True
    """May `send` be called, which waits until the record is acknowledged?"""

    enable_async: bool = False
    """May `send_async` be called, which does not wait?"""

    required_acks: Annotated[
        Literal["all", "leader", "none"], BeforeValidator(lambda value: _ACKS.get(str(value), value))
    ] = "all"
    """Who has to have a record before it counts as sent: all in-sync replicas, the leader, or nobody, and then nobody
    tells its offset either. Kafka: `acks`, whose -1, 1 and 0 are taken as well."""

    compression: Annotated[Compression, BeforeValidator(lambda value: "none" if value is None else value)] = "none"
    """Of batches. snappy, lz4 and zstd need a package each, which `kafetrain[compression]` installs. Kafka:
    `compression.type`."""

    max_retries: Annotated[Count, Field(ge=0)] = 3
    """How often a request is repeated that failed and may yet succeed. Kafka: `retries`."""

    retry_backoff: Duration = timedelta(milliseconds=100)
    """The wait before. Kafka: `retry.backoff.ms`."""

    idempotent: bool | None = None
    """True: a repeated request appends nothing twice and keeps the order. None: the client's default, which is the same
    where `required_acks` is all and `max_retries` above 0. Kafka: `enable.idempotence`."""

    max_message_bytes: Annotated[int, BeforeValidator(parse_size), Field(ge=1024)] = 1_048_576
    """A larger record is refused before it is sent. Kafka: `max.request.size`."""

    delivery_timeout: Duration = timedelta(seconds=30)
    """After so long a record has failed, whatever was tried. Kafka: `delivery.timeout.ms`."""

    max_block: Duration = timedelta(seconds=5)
    """How long `send_async` waits at most where as much is pending as may be."""

    max_pending: Annotated[Count, Field(ge=1)] = 10_000
    """Records of `send_async` whose callback has not been called."""

    max_pending_bytes: Annotated[int, BeforeValidator(parse_size), Field(ge=1024)] = 32 * 1024 * 1024
    """The same in bytes of keys, values and headers."""

    client_options: Annotated[Mapping[str, Any], Field(default_factory=dict, repr=False)]
    """Options of kafka-python, as `Settings.client_options`: how to log in, for one."""

    if TYPE_CHECKING:  # type checkers would want the types that the fields have, and text may stand for all of them

        def __init__(self, **values: Any) -> None: ...

    @field_validator("compression")
    @classmethod
    def _installed(cls, value: str) -> str:
        if missing := what_is_missing(value):
            raise ValueError(f"it {missing}")
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> ProducerConfig:
        if not (self.enable_sync or self.enable_async):
            raise ValueError("enable_sync and enable_async are both False: nothing could be sent")
        if self.idempotent and self.required_acks != "all":
            raise ValueError("idempotent needs required_acks all: a write that others do not have can be lost")
        if self.idempotent and self.max_retries == 0:
            raise ValueError("idempotent needs max_retries above 0: without repeating there is nothing to tell apart")
        return self

    def settings(self) -> Settings:
        """Where to connect and how, what is not declared taken from the environment. Raises `ConfigurationError`."""
        given: dict[str, Any] = {"group_id": "none"}  # which is of no meaning here
        if self.bootstrap_servers is not None:
            given["bootstrap_servers"] = self.bootstrap_servers
        found = by_kafka_python(Settings(**given))
        login = {name: value for name in OPTION_NAMES[self.client] if (value := getattr(found, name)) is not None}
        bound = {"bootstrap_timeout_ms": self.answer_timeout_ms}
        options = {**bound, **found.client_options, **self.client_options}
        return Settings(**given, **login, client=self.client, client_options=options)

    @property
    def answer_timeout_ms(self) -> int:
        """How long to wait for a first broker, and for one that knows a topic."""
        return max(1, min(ANSWER_TIMEOUT_MS, round(self.delivery_timeout.total_seconds() * 1000)))

    def options(self) -> dict[str, Any]:
        """By kafka-python's names."""
        options: dict[str, Any] = {
            "acks": {"all": "all", "leader": 1, "none": 0}[self.required_acks],
            "compression_type": None if self.compression == "none" else self.compression,
            "retries": self.max_retries,
            "retry_backoff_ms": max(1, round(self.retry_backoff.total_seconds() * 1000)),
            "max_request_size": self.max_message_bytes,
        }
        return options if self.idempotent is None else {**options, "enable_idempotence": self.idempotent}
