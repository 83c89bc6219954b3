"""The ports on kafka-python: one set of settings, and from it consumers, producers and admin clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError

from kafetrain.client.connection import (
    BOOTSTRAP_TIMEOUT_MS,
    MAX_BLOCK_MS,
    MAX_POLL_INTERVAL_MS,
    MAX_REQUEST_BYTES,
    REQUEST_TIMEOUT_MS,
    SESSION_TIMEOUT_MS,
    TRANSACTION_TIMEOUT_MS,
    ConnectionSettings,
    given_options,
)
from kafetrain.client.kafka_python_admin import KafkaPythonAdmin
from kafetrain.client.kafka_python_consumer import KafkaPythonConsumer
from kafetrain.client.kafka_python_errors import AUTH_ERRORS, client_error
from kafetrain.client.kafka_python_producer import KafkaPythonProducer
from kafetrain.client.kafka_python_transactions import KafkaPythonTransactions
from kafetrain.client.kafka_python_workarounds import net_client_factory
from kafetrain.client.ports import AdminPort, ClientError, ConsumerPort, ProducerPort, TransactionalProducerPort

__all__ = [
    "OWNED_OPTIONS",
    "ConnectionSettings",
    "KafkaPythonClient",
    "known_options",
]

OWNED_OPTIONS = frozenset(
    {
        "acks",
        "allow_auto_create_topics",
        "auto_commit_interval_ms",
        "auto_offset_reset",
        "bootstrap_servers",
        "consumer_timeout_ms",
        "default_offset_commit_callback",
        "enable_auto_commit",
        "enable_idempotence",
        "group_id",
        "isolation_level",
        "kafka_client",
        "key_deserializer",
        "key_serializer",
        "max_poll_records",
        "transactional_id",
        "value_deserializer",
        "value_serializer",
    }
)
"""Options that a promise of kafetrain depends on, so that no user may set them."""

BATCH_BYTES = 64 * 1024
"""Behind a full batch, each record that is sent wakes the library's thread."""

_PRODUCER_DEFAULTS = {
    "compression_type": "gzip",
    "max_request_size": MAX_REQUEST_BYTES,
    "batch_size": BATCH_BYTES,
    "linger_ms": 0,
    "retry_backoff_ms": 20,
    "max_block_ms": MAX_BLOCK_MS,
    "metrics_enabled": False,
}

_SECRETS = ("sasl_plain_password", "ssl_password")


def known_options() -> dict[str, frozenset[str]]:
    """The names of kafka-python's options for "consumer", "producer" and "admin", those of `OWNED_OPTIONS` included."""
    return {
        "consumer": frozenset(KafkaConsumer.DEFAULT_CONFIG),
        "producer": frozenset(KafkaProducer.DEFAULT_CONFIG),
        "admin": frozenset(KafkaAdminClient.DEFAULT_CONFIG),
    }


class KafkaPythonClient:
    """A `Client`. Building connects: `ClientError` names the brokers, and is retriable where they do not answer."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self._servers = list(settings.bootstrap_servers)
        self._options = _options_of(settings)

    def group_consumer(self, group: str, *, auto_offset_reset: str, role: str = "") -> ConsumerPort:
        session_ms = self._session_timeout_ms()
        options = {
            "session_timeout_ms": session_ms,
            "heartbeat_interval_ms": min(1_000, session_ms // 3),  # a member learns of a rebalance by one
            "max_poll_interval_ms": MAX_POLL_INTERVAL_MS,
        }
        ours = {"group_id": group, "auto_offset_reset": auto_offset_reset}
        if role and (instance := self._options.get("group_instance_id")):
            ours["group_instance_id"] = f"{instance}-{role}"  # a second member of one name would fence the first
        consumer = self._consumer(options, ours)
        return KafkaPythonConsumer(consumer, group)

    def reader(self) -> ConsumerPort:
        # "none": with any other policy a position below a purge jumps to the end, and everything before is missed.
        options = {"session_timeout_ms": self._session_timeout_ms()}
        return KafkaPythonConsumer(
            self._consumer(options, {"group_id": None, "group_instance_id": None, "auto_offset_reset": "none"}), None
        )

    def producer(self) -> ProducerPort:
        delivery_ms = self._delivery_timeout_ms()
        request_ms = self._options.get("request_timeout_ms", delivery_ms // 2)
        linger_ms = self._options.get("linger_ms", 0)
        ours = {
            "acks": "all",
            "enable_idempotence": True,
            "delivery_timeout_ms": delivery_ms,
            # The library wants this order; request_timeout_ms may be meant for the consumers.
            "request_timeout_ms": max(1, min(request_ms, delivery_ms - linger_ms)),
        }

        def build(api_version: Any = None) -> Any:
            known = {} if api_version is None else {"api_version": api_version}
            return self._build("producer", KafkaProducer, _PRODUCER_DEFAULTS, {**ours, **known})

        return KafkaPythonProducer(
            build,
            delivery_timeout_s=delivery_ms / 1000,
            max_block_s=self._options.get("max_block_ms", MAX_BLOCK_MS) / 1000,
        )

    def transactional_producer(self, id: str, consumer: ConsumerPort) -> TransactionalProducerPort:
        if not isinstance(consumer, KafkaPythonConsumer):
            raise TypeError(f"a {type(consumer).__name__} is no consumer of this client")
        timeout_ms = self._options.get("transaction_timeout_ms", TRANSACTION_TIMEOUT_MS)
        # What is not acknowledged before the brokers abort its transaction never counts.
        delivery_ms = max(2, min(self._delivery_timeout_ms(), timeout_ms * 8 // 10))
        ours = {
            "acks": "all",
            "enable_idempotence": True,
            "transactional_id": id,
            "transaction_timeout_ms": timeout_ms,
            "delivery_timeout_ms": delivery_ms,
            "request_timeout_ms": delivery_ms // 2,
            "linger_ms": 0,
            "retry_backoff_ms": 5,  # each small transaction waits that long for the end of the one before
        }
        producer = self._build("producer", KafkaProducer, _PRODUCER_DEFAULTS, ours)
        return KafkaPythonTransactions(producer, consumer.membership, timeout_s=timeout_ms / 1000)

    @property
    def delivery_timeout_s(self) -> float:
        return self._delivery_timeout_ms() / 1000

    def admin(self) -> AdminPort:
        timeout_ms = self._options.get("request_timeout_ms", REQUEST_TIMEOUT_MS)
        admin = self._build("admin", KafkaAdminClient, {"request_timeout_ms": timeout_ms}, {})
        return KafkaPythonAdmin(admin, timeout_ms)

    def _consumer(self, defaults: Mapping[str, Any], ours: Mapping[str, Any]) -> Any:
        defaults = {"fetch_max_wait_ms": 100, "metrics_enabled": False, **defaults}
        ours = {"enable_auto_commit": False, "isolation_level": "read_committed", **ours}
        return self._build("consumer", KafkaConsumer, defaults, ours)

    def _build(self, role: str, kind: Any, defaults: Mapping[str, Any], ours: Mapping[str, Any]) -> Any:
        """A client with `defaults`, over them the user's options as far as this role knows them, over them `ours`."""
        secrets = {name: self._options[name] for name in _SECRETS if name in self._options}
        bootstrap_ms = self._options.get("bootstrap_timeout_ms", BOOTSTRAP_TIMEOUT_MS)
        users = {k: v for k, v in self._options.items() if k in known_options()[role] and k not in _SECRETS}
        options = {
            # The library's 30 s would eat up the delivery timeout after a broker's restart; 1 s is Kafka's own default.
            "reconnect_backoff_max_ms": 1_000,
            **defaults,
            **users,
            **ours,
            "bootstrap_servers": self._servers,
            "bootstrap_timeout_ms": bootstrap_ms,
            "kafka_client": net_client_factory(secrets, bootstrap_ms),
        }
        if role != "admin":
            options["allow_auto_create_topics"] = False
        try:
            return kind(**options)
        except Exception as error:
            raise self._connection_error(role, error) from error

    def _connection_error(self, role: str, error: Exception) -> ClientError:
        servers = ",".join(self._servers)
        if isinstance(error, AUTH_ERRORS):
            return client_error(error, f"the {role} was refused by Kafka at {servers}; check the sasl_ settings")
        if not isinstance(error, (KafkaError, OSError, ClientError)):  # an option has a value that it cannot have
            return client_error(error, f"the {role} cannot be built")
        return client_error(error, f"the {role} could not connect to Kafka at {servers}")

    def _delivery_timeout_ms(self) -> int:
        return int(self._options.get("delivery_timeout_ms", self._session_timeout_ms() * 8 // 10))

    def _session_timeout_ms(self) -> int:
        return int(self._options.get("session_timeout_ms", SESSION_TIMEOUT_MS))


def _options_of(settings: ConnectionSettings) -> dict[str, Any]:
    """The user's options, the typed ones among them, by kafka-python's names."""
    options = given_options(settings, "kafka-python", OWNED_OPTIONS)
    if isinstance(options.get("api_version"), list):  # from JSON, which has no tuples
        options["api_version"] = tuple(options["api_version"])
    return options
