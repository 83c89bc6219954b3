"""What a managed consumer is declared to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, runtime_checkable

from pydantic import BeforeValidator, Field, field_validator, model_validator

from kafetrain import settings_checks as checks
from kafetrain.backoff_policy import ExponentialBackoff
from kafetrain.client.kafka_python_declared import BalanceStrategy, IsolationLevel
from kafetrain.durations import parse_size
from kafetrain.errors import ConfigurationError
from kafetrain.handlers import check_handler
from kafetrain.managed.declared import Count, Declared, Duration, Name, Servers
from kafetrain.record import BackoffPolicy, Handler, Middleware, Record
from kafetrain.settings import Settings
from kafetrain.tracker.hooks import OnDeadLetter

__all__ = ["Consumer", "ConsumerConfig"]

_OWN = {
    "client",
    "group_id",
    "bootstrap_servers",
    "client_options",
    "concurrency",
    "shutdown_timeout",
    "auto_offset_reset",
}
"""Settings that the declaration has fields of its own for."""


def _topics(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _strategies(value: object) -> object:
    names = checks.texts(value)
    return (
        value
        if names is None
        else [name.lower().replace("_", "-").replace("roundrobin", "round-robin") for name in names]
    )


def _retry(value: object) -> object:
    if value in (None, False):
        return None
    return {} if value is True else value


class ConsumerConfig(Declared):
    """One consumer of a service. Raises `ConfigurationError` with every field that cannot be."""

    job_name: Name
    """What its switch and its status are called. No two of a registry have the same."""

    topic: Annotated[list[Name], BeforeValidator(_topics), Field(min_length=1)]
    """The topic, or several."""

    group_id: Name
    """Kafka: `group.id`."""

    handler: Handler | None = None
    """Called with each record: returning is success, raising is an error of the consumer, which is then restarted."""

    bootstrap_servers: Servers | None = None
    """Brokers to ask first. None: `KAFETRAIN_BOOTSTRAP_SERVERS`, or localhost:9092."""

    client: Literal["kafka-python", "confluent"] | None = None
    """The library that talks to Kafka, as `Settings.client`. None: `KAFETRAIN_CLIENT`, or kafka-python."""

    auto_commit: bool = False
    """False: a record is committed once its handler returned, and delivered again if it did not. True: it is committed
    whatever came of it, so a record whose handler raised is lost to this group."""

    initial_offset: Literal["latest", "earliest"] = "latest"
    """Where a group begins that has committed nothing. `latest` skips what was written before it was first there.
    Kafka: `auto.offset.reset`."""

    isolation_level: IsolationLevel = "read_committed"
    """Whether records of transactions that are open or were aborted are delivered. Kafka: `isolation.level`."""

    balance_strategies: Annotated[tuple[BalanceStrategy, ...], BeforeValidator(_strategies), Field(min_length=1)] = (
        "round-robin",
    )
    """How the group shares its partitions, the most wanted first: the first that all members have is taken. To change
    it in a running group, roll out the new one beside the old one, and then without. confluent-kafka knows no
    `sticky`, and `cooperative-sticky` only alone. Kafka: `partition.assignment.strategy`."""

    session_timeout: Duration = timedelta(seconds=10)
    """After so long without a heartbeat its partitions go to others. Kafka: `session.timeout.ms`."""

    heartbeat_interval: Duration = timedelta(seconds=3)
    """At most a third of the session timeout is sound. Kafka: `heartbeat.interval.ms`."""

    max_processing_time: Duration = timedelta(milliseconds=100)
    """A handler that takes longer makes its partition fetch no more until it returns, and is warned of. Never does it
    cost the membership. No Kafka key."""

    max_message_bytes: Annotated[int, BeforeValidator(parse_size), Field(ge=1024)] = 1_048_576
    """How much one fetch takes of one partition; a single larger record is delivered all the same. Kafka:
    `max.partition.fetch.bytes`."""

    concurrency: Annotated[Count, Field(ge=1)] = 1
    """Handler threads. Records of a key run one after the other whatever it is."""

    retry: Annotated[Mapping[str, Any] | None, BeforeValidator(_retry), Field(repr=False)] = None
    """True, or settings of ordered retries (`max_retries`, `backoff`, `free_on_dlq`, ... as in `Settings`): a failing
    record waits in the retry topic, its key behind it, and the consumer goes on."""

    on_dead_letter: OnDeadLetter | None = None
    """With `retry`: called with the record and the error when a record was given up, on a thread of its own."""

    middlewares: Sequence[Middleware] = ()
    """Around the handler; the first is the outermost."""

    max_consecutive_errors: Annotated[Count, Field(ge=1)] = 10
    """After so many errors with no success between them the consumer is disabled until it is switched on again."""

    restart_backoff: BackoffPolicy = ExponentialBackoff(
        initial=timedelta(seconds=1), maximum=timedelta(seconds=60), jitter=0.0
    )
    """How long to wait before the restart after the 1st, 2nd, ... error in a row."""

    shutdown_timeout: Duration = timedelta(seconds=10)
    """How long running handlers are waited for when it stops. What has not ended by then is delivered again."""

    client_options: Annotated[Mapping[str, Any], Field(default_factory=dict, repr=False)]
    """Options of the client by its own names, as `Settings.client_options`: how to log in, for one."""

    if TYPE_CHECKING:  # type checkers would want the types that the fields have, and text may stand for all of them

        def __init__(self, **values: Any) -> None: ...

    @field_validator("handler", "on_dead_letter", "restart_backoff", mode="before")
    @classmethod
    def _callable(cls, value: object) -> object:
        if value is not None:
            try:
                check_handler(value, "it")
            except ConfigurationError as error:
                raise ValueError(str(error)) from None
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> ConsumerConfig:
        if self.heartbeat_interval >= self.session_timeout:
            raise ValueError("heartbeat_interval must be below session_timeout, or every member is given up")
        if self.retry is None:
            if self.on_dead_letter is not None:
                raise ValueError("on_dead_letter needs retry: without it no record is given up")
        else:
            if self.auto_commit:
                raise ValueError("auto_commit and retry exclude each other: retries need to know what has not ended")
            if self.isolation_level != "read_committed":
                raise ValueError("retry needs isolation_level read_committed")
            if taken := sorted(_OWN & self.retry.keys()):
                raise ValueError(f"retry has {', '.join(taken)}, which the declaration has a field of its own for")
        return self

    def settings(self) -> Settings:
        """The settings that follow, what is not declared taken from the environment. Raises `ConfigurationError`."""
        given: dict[str, Any] = {
            "group_id": self.group_id,
            "concurrency": self.concurrency,
            "shutdown_timeout": self.shutdown_timeout,
            "auto_offset_reset": self.initial_offset,
            **(self.retry or {}),
        }
        for name in ("bootstrap_servers", "client"):
            if (value := getattr(self, name)) is not None:
                given[name] = value
        found = Settings(**given)
        declared = {
            "session_timeout_ms": _ms(self.session_timeout),
            "heartbeat_interval_ms": _ms(self.heartbeat_interval),
            "max_partition_fetch_bytes": self.max_message_bytes,
        }
        if found.client == "confluent":
            self._check_strategies_of_confluent()
            declared = {name.replace("_", "."): value for name, value in declared.items()}
        options = {**found.client_options, **declared, **self.client_options}
        return Settings(**given, client_options=options)

    def _check_strategies_of_confluent(self) -> None:
        said = f"ConsumerConfig: balance_strategies = {', '.join(self.balance_strategies)}"
        if "sticky" in self.balance_strategies:
            raise ConfigurationError(f"{said}: client 'confluent' knows no sticky; cooperative-sticky is like it")
        if "cooperative-sticky" in self.balance_strategies and len(self.balance_strategies) > 1:
            raise ConfigurationError(f"{said}: client 'confluent' takes cooperative-sticky only alone")


@runtime_checkable
class Consumer(Protocol):
    """An object that is a consumer by itself: its declaration, and what is called with each record."""

    @property
    def config(self) -> ConsumerConfig: ...

    def handle(self, record: Record) -> object: ...


def _ms(duration: timedelta) -> int:
    return max(1, round(duration.total_seconds() * 1000))
