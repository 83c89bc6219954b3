"""Every setting, in one frozen object: read once, checked as a whole, passed in.

`Settings(...)` takes keyword arguments, then `KAFETRAIN_...` environment variables, then a `.env` file, then the
defaults; what is more to the left wins. This is the only place that reads the environment.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated, Any, Literal

from loguru import logger
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from kafetrain import settings_checks as checks
from kafetrain.backoff_policy import ExponentialBackoff
from kafetrain.breaker import Breaker
from kafetrain.client_checks import check_client, check_client_options, check_delivery, check_security
from kafetrain.durations import parse_duration, parse_size
from kafetrain.error_classes import error_classes
from kafetrain.errors import ConfigurationError
from kafetrain.record import BackoffPolicy
from kafetrain.retriable import decide
from kafetrain.settings_problems import MayBe, Together, as_text, problems_of

__all__ = ["Settings"]

_PREFIX = "KAFETRAIN_"
# Read by the test fixtures and by apps, so not unknown.
_ELSEWHERE = ("KAFETRAIN_TEST", "KAFETRAIN_CACHE", "KAFETRAIN_TOPICS", "KAFETRAIN_AUTO_COMMIT")

_Count = Annotated[int, BeforeValidator(checks.whole_number)]
_Timeout = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    AfterValidator(checks.up_to_a_day),
    MayBe("a duration such as 30s, up to one day"),
]
_Prefix = Annotated[str, AfterValidator(checks.topic_prefix), MayBe("letters, digits, '.', '_' and '-', at least one")]
_Classes = Annotated[
    tuple[type[Exception], ...],
    BeforeValidator(error_classes),
    MayBe("subclasses of Exception, or their dotted names separated by commas"),
]
_File = Annotated[str | None, BeforeValidator(checks.path), MayBe("the path of a file in PEM format")]


class Settings(BaseSettings):
    """Everything that can be set. Frozen; safe to share between threads.

    Raises one `ConfigurationError` that names every setting that is wrong, what it was (never a secret) and what it
    may be. Nothing is connected to. Text may stand for every value, as in the environment: durations `500ms`, `1s`,
    `5m`, `2h`, ISO 8601 or a number of seconds; sizes `64MiB`; lists with commas; mappings as JSON.
    """

    # Inputs stay out of error texts: client_options may hold a password. Text is taken apart here and not by
    # pydantic-settings, which would want JSON for every list.
    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        enable_decoding=False,
        extra="ignore",  # of .env, which serves other programs too; __init__ refuses unknown keywords
        frozen=True,
        hide_input_in_errors=True,
    )

    bootstrap_servers: Annotated[
        list[str],
        BeforeValidator(checks.servers),
        MayBe("host:port, several as a list or separated by commas"),
    ] = ["localhost:9092"]  # pydantic copies it for every instance
    """Brokers to ask first, `host:port` each; they name all the others. Two or three, so that one may be down.
    Kafka: `bootstrap.servers`."""

    group_id: Annotated[str, Field(min_length=1), AfterValidator(checks.group), MayBe("the name of a consumer group")]
    """Consumer group of the source topic; required. `{group_id}-retry` reads the retry topics. Another group has
    retries of its own, also of the same topic. Kafka: `group.id`."""

    client: Annotated[Literal["kafka-python", "confluent"], MayBe("kafka-python or confluent")] = "kafka-python"
    """The library that talks to Kafka. `confluent`: confluent-kafka, faster, with the extra `confluent`."""

    security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] | None,
        MayBe("PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"),
    ] = None
    """How to reach the brokers. None: the client's own default, PLAINTEXT. Kafka: `security.protocol`."""

    sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "GSSAPI", "AWS_MSK_IAM"] | None,
        MayBe("PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER, GSSAPI or AWS_MSK_IAM"),
    ] = None
    """How to log in; needs a `SASL_...` protocol. Kafka: `sasl.mechanism`."""

    sasl_username: Annotated[str | None, MayBe("text")] = None
    """User for PLAIN and SCRAM."""

    sasl_password: Annotated[SecretStr | None, MayBe("text")] = None
    """Password for PLAIN and SCRAM. Never in a log, an error or a `repr`."""

    ssl_cafile: _File = None
    """Certificates to trust, PEM. None: those of the system."""

    ssl_certfile: _File = None
    """Our own certificate, PEM, where the brokers ask for one."""

    ssl_keyfile: _File = None
    """The key of `ssl_certfile`, PEM, where it is not in the same file."""

    max_retries: Annotated[
        Annotated[int, Field(ge=0)] | None,
        BeforeValidator(checks.none_or(checks.whole_number)),
        MayBe("a whole number of at least 0, or none for no limit"),
    ] = 5
    """Runs of the handler after the first one. 0: the first failure is the last. None: no limit. A key waits for as
    long as its head is retried."""

    maximum_attempts_age: Annotated[
        timedelta | None,
        BeforeValidator(checks.none_or(parse_duration)),
        AfterValidator(checks.positive),
        MayBe("a duration such as 2h, or none for no limit"),
    ] = None
    """A record that fails when its first failure is longer ago than this is dead. None: its age does not matter. Where
    this is set and `max_retries` is not, the number of runs has no limit; with both, what is reached first counts."""

    backoff: Annotated[
        BackoffPolicy,
        BeforeValidator(checks.policy),
        MayBe(
            "a callable from the attempt to a timedelta, or a mapping with policy (exponential, linear, constant), "
            "initial, multiplier, step, maximum, jitter"
        ),
    ] = ExponentialBackoff()
    """How long to wait before attempt 1, 2, ...; `RetriableError(delay=...)` replaces it for one attempt. In files a
    mapping, in the environment the same as JSON."""

    breaker: Annotated[
        Breaker | None,
        BeforeValidator(checks.none_or(checks.breaker)),
        MayBe("a Breaker, a mapping with keys, window, probe_after, probe_at_most, or none"),
    ] = None
    """For a dependency that is down: with a `Breaker`, a topic's partitions pause once so many keys in a row failed
    alike, and single records find out when it is over. None: each record is retried by itself. In files a mapping, in
    the environment the same as JSON."""

    retry_topic_prefix: _Prefix = "retry"
    """Beginning of the retry topic's name."""

    redirect_topic_prefix: _Prefix = "redirect"
    """Beginning of the redirect topic's name, which holds the locks."""

    dlq_topic_prefix: _Prefix = "dlq"
    """Beginning of the dead-letter topic's name."""

    topic_format: Annotated[
        str,
        AfterValidator(checks.topic_format),
        MayBe("text with {prefix}, {topic} and perhaps {group}, such as {prefix}-{group}-{topic}"),
    ] = "{prefix}-{topic}"
    """How the names of the three topics are made. With `{group}` every group has topics of its own, which lets old
    records be purged while other groups retry."""

    retry_topic_partitions: Annotated[
        _Count, Field(ge=0), MayBe("a whole number of at least 0 (0: as many as the source)")
    ] = 0
    """Partitions of each of the three topics. 0: as many as the source topic, and they grow with it. An explicit
    number saves partitions, and must never change while keys are locked."""

    replication_factor: Annotated[
        _Count, AfterValidator(checks.replicas), MayBe("-1 (the broker's default) or 1 to 32767")
    ] = -1
    """Replicas of topics that are created. -1: the broker's default. Kafka: `replication.factor`."""

    auto_create_topics: Annotated[bool, MayBe("true or false")] = True
    """Create topics that are missing, and grow them with the source topic. False: an error that prints the commands."""

    free_on_dlq: Annotated[bool, MayBe("true or false")] = False
    """What follows a dead letter of the same key. False: it is parked behind it, until an operator releases or
    replays the key. True: it runs, as if nothing had been."""

    state_restore_timeout: _Timeout = timedelta(seconds=30)
    """How long restoring the locks of a partition may make no progress, before it is an error."""

    delivery: Annotated[Literal["at-least-once", "transactional"], MayBe("at-least-once or transactional")] = (
        "at-least-once"
    )
    """What an instance can do that has lost a partition without knowing it. `at-least-once`: lose nothing, but break
    the order. `transactional`: nothing; locks, retry records, dead letters and offsets are written in transactions,
    which costs a failing record some ms. For layers 2 and 3. Kafka: `transactional.id`."""

    concurrency: Annotated[_Count, Field(ge=1), MayBe("a whole number of at least 1")] = 1
    """Handler threads on the source side, and as many on the retry side. The order of a key always holds, so more
    of them help only where there are several keys."""

    max_held_records: Annotated[_Count, Field(ge=1), MayBe("a whole number of at least 1")] = 10_000
    """Records that one partition keeps in memory, on either side. Full: it is paused, and resumed below half. More
    lets more keys wait without delaying others, at their size each. No Kafka key."""

    max_held_bytes: Annotated[
        int, BeforeValidator(parse_size), Field(ge=1024), MayBe("a size of at least 1024 bytes, such as 64MiB")
    ] = 64 * 1024 * 1024
    """The same in bytes of keys, values and headers; the bound that is reached first counts. No Kafka key."""

    shutdown_timeout: _Timeout = timedelta(seconds=10)
    """How long a stop waits for running handlers. What has not ended by then runs again later."""

    auto_offset_reset: Annotated[Literal["earliest", "latest"], MayBe("earliest or latest")] = "earliest"
    """Where a group without committed offsets begins in the source topic. Kafka: `auto.offset.reset`."""

    retry_on: _Classes = (Exception,)
    """Errors of a handler after which another try may help."""

    never_retry_on: _Classes = ()
    """Errors after which it cannot; wins over `retry_on`."""

    # The last one, so that its validator sees all the others.
    client_options: Annotated[
        dict[str, Any], BeforeValidator(checks.json_mapping), MayBe("a mapping of the Kafka client's options")
    ] = Field(default_factory=dict, repr=False, validate_default=True)
    """Options of the Kafka client by its own names; each goes to those of consumer, producer and admin that know it.
    Not for what has a setting here, nor for what kafetrain must set itself."""

    def __init__(self, **values: Any) -> None:
        names = type(self).model_fields
        problems: list[str] = []
        for name in [n for n in values if n not in names and not n.startswith("_")]:
            del values[name]
            problems.append(f"{name} is unknown{checks.nearest(name, names) or '; there are ' + ', '.join(names)}")
        try:
            super().__init__(**values)
        except ValidationError as error:
            problems += problems_of(error, names, _PREFIX, given=values)
        except (SettingsError, OSError, UnicodeError) as error:
            problems.append(f"the environment or the .env file cannot be read: {type(error).__name__}")
        # Not raised inside the handler: an error that keeps pydantic's as its context would keep the inputs as well.
        if problems:
            raise ConfigurationError(as_text(problems))

    @field_validator("client_options")
    @classmethod
    def _fit_together(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        values = {**info.data, "client_options": value}
        problems = [*checks.check_prefixes(values), *check_client(values), *check_delivery(values)]
        problems += [*check_security(values), *check_client_options(values)]
        if problems:
            raise Together(problems)
        return value

    @model_validator(mode="after")
    def _age_instead_of_count(self) -> Settings:
        if self.maximum_attempts_age is not None and "max_retries" not in self.model_fields_set:
            self.__dict__["max_retries"] = None  # frozen for everybody else
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        for source, place in ((env_settings, "environment"), (dotenv_settings, ".env file")):
            if isinstance(source, EnvSettingsSource):
                # What is there for other programs must not get in by the bare name of a setting.
                source.env_vars = {n: t for n, t in source.env_vars.items() if n.upper().startswith(_PREFIX)}
                cls._warn_of_unknown(source.env_vars, place)
        return init_settings, env_settings, dotenv_settings, file_secret_settings

    @classmethod
    def _warn_of_unknown(cls, variables: Iterable[str], place: str) -> None:
        for variable in sorted(map(str.upper, variables)):
            name = variable.removeprefix(_PREFIX).lower()
            if name not in cls.model_fields and not variable.startswith(_ELSEWHERE):
                hint = checks.nearest(name, cls.model_fields, _PREFIX)
                logger.warning("{} in the {} is no setting and has no effect{}", variable, place, hint)

    @property
    def retry_group_id(self) -> str:
        """The consumer group that reads the retry topics."""
        return f"{self.group_id}-retry"

    def is_retriable(self, error: BaseException) -> bool:
        """Whether a record that failed with `error` is tried again, as far as attempts are left.

        `RetriableError` is unless `retry=False`; `NotRetriableError` is not; else `never_retry_on` and then `retry_on`
        decide.
        """
        return decide(error, retry_on=self.retry_on, never_retry_on=self.never_retry_on)
