"""The ports on confluent-kafka: one set of settings, and from it consumers, producers and admin clients."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from loguru import logger

from kafetrain.client.by_kafka_python import ByKafkaPython
from kafetrain.client.confluent_admin import ConfluentAdmin
from kafetrain.client.confluent_consumer import ConfluentConsumer
from kafetrain.client.confluent_errors import AUTH_ERRORS, text_of
from kafetrain.client.confluent_producer import ConfluentProducer
from kafetrain.client.confluent_transactions import ConfluentTransactions
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
from kafetrain.client.kafka_python import KafkaPythonClient
from kafetrain.client.ports import AdminPort, ClientError, ConsumerPort, ProducerPort, TransactionalProducerPort

__all__ = ["OWNED_OPTIONS", "ConfluentClient", "wrong_options"]

OWNED_OPTIONS = frozenset(
    {
        "acks",
        "allow.auto.create.topics",
        "auto.commit.interval.ms",
        "auto.offset.reset",
        "bootstrap.servers",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.idempotence",
        "enable.partition.eof",
        "error_cb",
        "group.id",
        "group.protocol",
        "isolation.level",
        "logger",
        "message.timeout.ms",
        "metadata.broker.list",
        "on_commit",
        "on_delivery",
        "request.required.acks",
        "transactional.id",
    }
)
"""Options that a promise of kafetrain depends on, so that no user may set them."""

BATCH_BYTES = 16 * 1024
"""A batch is refused as a whole. So small a one holds a single record wherever a topic's limit may be exceeded."""

_PRODUCER_DEFAULTS = {
    "batch.size": BATCH_BYTES,
    "compression.type": "zstd",
    "linger.ms": 1,  # what fails together leaves together: a broker answers one request of a connection at a time
    "message.max.bytes": MAX_REQUEST_BYTES,
    "queue.buffering.max.kbytes": 4 * MAX_REQUEST_BYTES // 1024,  # ours is the bound that counts
    "retry.backoff.ms": 20,
}

_READ_LITTLE_AHEAD = {"queued.min.messages": 10_000}
"""Of locks and retries, which may be a million: the library's 100,000 take 100 MB."""

ASK_AGAIN_S = 0.5
_SOME_TOPIC = "__consumer_offsets"  # asking for one is cheaper than for all


class ConfluentClient:
    """A `Client`. Building connects: `ClientError` names the brokers, and is retriable where they do not answer."""

    def __init__(
        self,
        settings: ConnectionSettings,
        *,
        bootstrap_timeout_s: float = BOOTSTRAP_TIMEOUT_MS / 1000,
        max_block_s: float = MAX_BLOCK_MS / 1000,
    ) -> None:
        self._servers = ",".join(settings.bootstrap_servers)
        self._options = _options_of(settings)
        self._bootstrap_timeout_s, self._max_block_s = bootstrap_timeout_s, max_block_s

    def group_consumer(self, group: str, *, auto_offset_reset: str, role: str = "") -> ConsumerPort:
        session_ms = self._session_timeout_ms()
        options: dict[str, Any] = {
            "session.timeout.ms": session_ms,
            "heartbeat.interval.ms": max(1, min(1_000, session_ms // 3)),  # a member learns of a rebalance by one
            "max.poll.interval.ms": max(MAX_POLL_INTERVAL_MS, session_ms),
        }
        if role:  # not the one that reads the source
            options |= _READ_LITTLE_AHEAD
        ours = {"group.id": group, "auto.offset.reset": auto_offset_reset}
        if role and (instance := self._options.get("group.instance.id")):
            ours["group.instance.id"] = f"{instance}-{role}"  # a second member of one name would fence the first
        consumer, used = self._consumer(options, ours)
        return ConfluentConsumer(
            consumer,
            group,
            self.admin,
            begins_at_end=auto_offset_reset == "latest",
            is_cooperative="cooperative" in str(used.get("partition.assignment.strategy", "")),
            max_poll_interval_s=int(used["max.poll.interval.ms"]) / 1000,
        )

    def reader(self) -> ConsumerPort:
        # "error": with any other policy a position below a purge jumps to the end, and everything before is missed.
        # The library wants the name of a group, and joins none.
        ours = {"group.id": "kafetrain-reader", "group.instance.id": None, "auto.offset.reset": "error"}
        consumer, _ = self._consumer({"session.timeout.ms": self._session_timeout_ms(), **_READ_LITTLE_AHEAD}, ours)
        return ConfluentConsumer(consumer, None, self.admin)

    def producer(self) -> ProducerPort:
        delivery_ms = self._delivery_timeout_ms()
        defaults = {**_PRODUCER_DEFAULTS, "request.timeout.ms": max(1, delivery_ms // 2)}
        ours = {"acks": "all", "enable.idempotence": True, "delivery.timeout.ms": delivery_ms}
        return ConfluentProducer(
            lambda: self._build("producer", Producer, defaults, ours)[0], self.admin, max_block_s=self._max_block_s
        )

    def transactional_producer(self, id: str, consumer: ConsumerPort) -> TransactionalProducerPort:
        if not isinstance(consumer, ConfluentConsumer):
            raise TypeError(f"a {type(consumer).__name__} is no consumer of this client")
        timeout_ms = int(self._options.get("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS))
        # What is not acknowledged before the brokers abort its transaction never counts.
        delivery_ms = max(2, min(self._delivery_timeout_ms(), timeout_ms * 8 // 10))
        ours = {
            "acks": "all",
            "enable.idempotence": True,
            "transactional.id": id,
            "transaction.timeout.ms": timeout_ms,
            "delivery.timeout.ms": delivery_ms,
            "request.timeout.ms": delivery_ms // 2,
            # The library wants it below the transaction's.
            "socket.timeout.ms": min(int(self._options.get("socket.timeout.ms", delivery_ms)), delivery_ms),
            "linger.ms": 0,
            "retry.backoff.ms": 5,
        }
        producer, _ = self._build("producer", Producer, _PRODUCER_DEFAULTS, ours)
        return ConfluentTransactions(
            producer, id, consumer.membership, self.admin, timeout_s=timeout_ms / 1000, max_block_s=self._max_block_s
        )

    @property
    def delivery_timeout_s(self) -> float:
        return self._delivery_timeout_ms() / 1000

    def admin(self) -> ConfluentAdmin:
        timeout_ms = self._options.get("request.timeout.ms", REQUEST_TIMEOUT_MS)
        # It has to log in the same way: by what the settings can say.
        mechanism = str(self._options.get("sasl.mechanism", self._options.get("sasl.mechanisms", "")))
        build_reader = None if mechanism in ("OAUTHBEARER", "GSSAPI") else self._build_reader
        return ConfluentAdmin(self._build("admin", AdminClient, {}, {})[0], int(timeout_ms) / 1000, build_reader)

    def _build_reader(self) -> AdminPort:
        return KafkaPythonClient(ByKafkaPython(self._servers.split(","), self._options)).admin()

    def _consumer(self, defaults: Mapping[str, Any], ours: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
        defaults = {
            # The library's second shows as stalls.
            "fetch.queue.backoff.ms": 10,
            "fetch.wait.max.ms": 100,
            # What a coordinator that has gone silent keeps a commit waiting.
            "socket.timeout.ms": 10_000,
            **defaults,
        }
        ours = {
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            **ours,
        }
        return self._build("consumer", Consumer, defaults, ours)

    def _build(
        self, role: str, kind: Any, defaults: Mapping[str, Any], ours: Mapping[str, Any]
    ) -> tuple[Any, Mapping[str, Any]]:
        """A client with `defaults`, over them the user's options, over them `ours`; and all of them."""
        failures: list[Any] = []
        options = {
            "reconnect.backoff.max.ms": 1_000,
            "socket.keepalive.enable": True,
            **defaults,
            **self._options,
            **ours,
            "bootstrap.servers": self._servers,
            "error_cb": lambda error: _note(failures, error),
            "logger": _Log(),
        }
        options = {name: value for name, value in options.items() if value is not None}
        try:
            client = kind(options)
        except (KafkaException, ValueError, TypeError) as error:
            raise ClientError(f"the {role} cannot be built: {text_of(error)}") from error
        try:
            self._reach(role, client, failures)
        except ClientError:
            if kind is Consumer:
                client.close()
            raise
        return client, options

    def _reach(self, role: str, client: Any, failures: list[Any]) -> None:
        """Return once a broker answers."""
        deadline = time.monotonic() + self._bootstrap_timeout_s
        while True:
            try:
                client.list_topics(_SOME_TOPIC, max(0.01, min(ASK_AGAIN_S, deadline - time.monotonic())))
                return
            except KafkaException as error:
                failure: Any = error
            client.poll(0)  # tells why
            if refused := [error for error in failures if error.code() in AUTH_ERRORS]:
                why = f"was refused by Kafka at {self._servers}; check the sasl_ settings: {text_of(refused[-1])}"
                raise ClientError(f"the {role} {why}")
            if time.monotonic() >= deadline:
                reasons = [error for error in failures if error.code() != _ALL_DOWN] or [failure]
                why = f"could not connect to Kafka at {self._servers}: {text_of(reasons[-1])}"
                raise ClientError(f"the {role} {why}", retriable=True) from failure

    def _delivery_timeout_ms(self) -> int:
        return int(self._options.get("delivery.timeout.ms", self._session_timeout_ms() * 8 // 10))

    def _session_timeout_ms(self) -> int:
        return int(self._options.get("session.timeout.ms", SESSION_TIMEOUT_MS))


_ALL_DOWN = -187  # says nothing that an error before it has not said


def _note(failures: list[Any], error: Any) -> None:
    logger.debug("librdkafka: {}", text_of(error))
    failures.append(error)
    del failures[:-10]


class _Log:
    """Where librdkafka's log lines go: it would write them to stderr."""

    def log(self, level: int, message: str, *args: object) -> None:
        logger.debug("librdkafka: {}", message % args if args else message)


def wrong_options(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(name, what is wrong with it), as far as the library tells without connecting. No value is repeated."""
    for name, value in options.items():
        try:
            AdminClient({name: value, "logger": _Log()})
        except (KafkaException, ValueError, TypeError) as error:
            text = str(error)
            if "No such configuration property" in text:
                near = name.replace("_", ".")
                hint = f"; did you mean {near}?" if near != name and not list(wrong_options({near: value})) else ""
                yield name, f"is known to no confluent-kafka client{hint}"
            elif "nvalid value" in text or "expect" in text:
                yield name, "has a value that confluent-kafka does not take"


def _options_of(settings: ConnectionSettings) -> dict[str, Any]:
    """The user's options, the typed ones among them, by librdkafka's names."""
    options = given_options(settings, "confluent", OWNED_OPTIONS)
    # Without the key's own file it is in that of the certificate, as elsewhere.
    if "ssl.certificate.location" in options and "ssl.key.pem" not in options:
        options.setdefault("ssl.key.location", options["ssl.certificate.location"])
    return options
