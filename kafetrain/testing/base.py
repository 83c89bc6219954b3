"""What a test may ask of the Kafka broker that it runs on, whatever that broker is.

A broker is an address first. Beyond that, each kind says what it can do: only those that run on this machine
can be stopped, and a mock cannot create topics as asked. What a kind cannot do raises `UnsupportedByBrokerError`
with the reason, so that a test may turn it into a skip; nothing is silently left undone.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal

from kafetrain.errors import KafetrainError

__all__ = [
    "Broker",
    "BrokerKind",
    "BrokerNotReadyError",
    "NoBrokerError",
    "UnsupportedByBrokerError",
]

BrokerKind = Literal["address", "container", "apache-kafka", "embedded"]


class NoBrokerError(KafetrainError):
    """No way to a broker worked. The text has one line for each way, why it did not, and what to install."""


class BrokerNotReadyError(KafetrainError):
    """A broker did not come up, or answers no longer. The text ends with its log's last lines, if it has a log."""


class UnsupportedByBrokerError(KafetrainError):
    """This kind of broker cannot do what was asked. Nothing has changed."""


class Broker:
    """A running Kafka broker, plaintext, and all that it offers to tests. `close()` or `with` ends it.

    `bootstrap_servers`: the addresses, as every Kafka client takes them; the same after a restart.
    `kind`: where it came from.
    `client_options`: what kafka-python needs besides the address to talk to it: pass them on to each client.
    `skipped`: for each way that was tried before this one, why it was not taken.

    Threads: any, but `stop`, `start`, `kill` and `close` from one at a time.
    """

    can_restart: bool = False
    """True where `stop()`, `kill()` and `start()` work."""

    def __init__(
        self, bootstrap_servers: str, kind: BrokerKind, client_options: Mapping[str, Any] | None = None
    ) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.kind: BrokerKind = kind
        self.client_options: dict[str, Any] = dict(client_options or {})
        self.skipped: tuple[str, ...] = ()

    @property
    def is_real(self) -> bool:
        """True for Apache Kafka itself, False for a mock."""
        return self.kind != "embedded"

    def stop(self) -> None:
        """Shut the broker down in good order; returns when its process is gone. Stopped already: no-op."""
        raise self._unsupported("stop")

    def kill(self) -> None:
        """End the broker at once, as a crash does: nothing is flushed, nobody is told. Stopped already: no-op."""
        raise self._unsupported("kill")

    def start(self) -> None:
        """Start it again after `stop()` or `kill()`: same address, same data. Returns when it answers.

        Running already: no-op. Raises `BrokerNotReadyError`.
        """
        raise self._unsupported("start")

    def create_topic(self, name: str, partitions: int = 1, configs: Mapping[str, str] | None = None) -> None:
        """Create a topic; returns when each of its partitions has a leader.

        Raises the client's error (kafka-python's `TopicAlreadyExistsError`, say), or
        `UnsupportedByBrokerError` where the mock cannot make such a topic.
        """
        with self._admin() as admin:
            admin.create_topics(
                {name: {"num_partitions": partitions, "replication_factor": -1, "configs": dict(configs or {})}},
                wait_for_metadata=True,
            )

    def create_unique_topic(
        self, partitions: int = 1, configs: Mapping[str, str] | None = None, *, prefix: str = "test"
    ) -> str:
        """Create a topic that no other test has, and return its name: `{prefix}-` and 12 hex digits."""
        name = f"{prefix}-{uuid.uuid4().hex[:12]}"
        self.create_topic(name, partitions, configs)
        return name

    def delete_topic(self, name: str) -> None:
        """Delete a topic with all its records. Raises the client's error."""
        with self._admin() as admin:
            admin.delete_topics([name])

    def check(self, timeout_s: float = 10.0) -> None:
        """Ask the broker to describe its cluster. Raises `BrokerNotReadyError` when it does not within `timeout_s`."""
        try:
            with self._admin(timeout_s) as admin:
                admin.describe_cluster()
        except Exception as error:  # whatever the client raises, the answer is the same: not now
            raise BrokerNotReadyError(
                f"no Kafka broker answers at {self.bootstrap_servers}: {type(error).__name__}: {error}"
            ) from error

    def close(self) -> None:
        """End the broker and remove what it left behind; repeated: no-op. One that was given as an address stays."""

    def __enter__(self) -> Broker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _admin(self, timeout_s: float = 30.0) -> Any:
        from kafka import KafkaAdminClient

        timeout_ms = int(timeout_s * 1000)
        return KafkaAdminClient(
            bootstrap_servers=self.bootstrap_servers,
            bootstrap_timeout_ms=timeout_ms,
            request_timeout_ms=timeout_ms,
            **self.client_options,
        )

    def _unsupported(self, what: str) -> UnsupportedByBrokerError:
        return UnsupportedByBrokerError(
            f"a broker of kind {self.kind!r} has no {what}(): only one that runs on this machine has, "
            f"Apache Kafka from Maven or in a container (check `can_restart` first)"
        )
