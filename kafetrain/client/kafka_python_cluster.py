"""What can be asked of a cluster as a whole: brokers, topics by name, and what this user may do."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from kafka import KafkaAdminClient
from kafka import errors as kafka_errors

from kafetrain.client.kafka_python import KafkaPythonClient
from kafetrain.client.kafka_python_errors import client_error, is_retriable

__all__ = ["ClusterClient", "ClusterDescription"]

T = TypeVar("T")

CONNECT_TIMEOUT_S = 3.0
ANSWER_TIMEOUT_S = 10.0
ASK_AGAIN_AFTER_S = 0.1
_HIDDEN = kafka_errors.TopicAuthorizationFailedError.errno


@dataclass(frozen=True)
class ClusterDescription:
    """As the brokers tell it."""

    brokers: Mapping[int, str]
    """The address that each tells clients to use, by its number."""
    controller: int
    version: str
    """The highest that its protocol shows, such as 4.0: brokers do not tell their own."""
    operations: frozenset[str] | None
    """What this user may do with the cluster itself; None: not told."""


class ClusterClient(KafkaPythonClient):
    """Connects for each question. `ClientError` where no broker answers."""

    def topic_names(self) -> list[str]:
        """Every topic that this user may see, Kafka's own left out."""
        return self._ask(
            "listing topics",
            lambda admin: sorted(name for name in admin.list_topics() if not name.startswith("__")),
        )

    def describe(self) -> ClusterDescription:
        """Brokers and controller."""

        def describe(admin: Any) -> ClusterDescription:
            told = admin.describe_cluster()
            version = ".".join(map(str, admin._manager.broker_version or ()))
            return ClusterDescription(
                {broker["broker_id"]: f"{broker['host']}:{broker['port']}" for broker in told["brokers"]},
                told["controller_id"],
                version or "unknown",
                _operations(told),
            )

        return self._ask("describing the cluster", describe)

    def topic_operations(self, topics: Collection[str]) -> Mapping[str, frozenset[str] | None]:
        """What this user may do with each, nothing where it may not see it; those that do not exist are absent."""

        def ask(admin: Any) -> dict[str, frozenset[str] | None]:
            told = admin.describe_topics(sorted(topics))
            hidden = {topic["name"]: frozenset[str]() for topic in told if topic["error_code"] == _HIDDEN}
            return {**hidden, **{topic["name"]: _operations(topic) for topic in told if topic["error_code"] == 0}}

        return self._ask("asking what may be done with topics", ask) if topics else {}

    def group_operations(self, groups: Collection[str]) -> Mapping[str, frozenset[str] | None]:
        """The same of groups; None where a group does not exist yet."""

        def ask(name: str, admin: Any) -> frozenset[str] | None:
            try:
                return _operations(admin.describe_groups([name], include_authorized_operations=True)[name])
            except kafka_errors.GroupAuthorizationFailedError:
                return frozenset()

        doing = "asking what may be done with groups"
        return {name: self._ask(doing, partial(ask, name)) for name in sorted(groups)}

    @staticmethod
    def unreachable(address: str) -> str | None:
        """Why nothing can connect to this address; None: something can."""
        host, _, port = address.rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S):
                return None
        except OSError as error:
            return error.strerror or type(error).__name__

    def _ask(self, doing: str, question: Callable[[Any], T]) -> T:
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        with self._admin() as admin:
            while True:
                try:
                    return question(admin)
                except Exception as error:
                    # A cluster that is new has no coordinator of groups yet: the first question makes it have one.
                    if not is_retriable(error) or time.monotonic() > deadline:
                        raise client_error(error, doing) from error
                time.sleep(ASK_AGAIN_AFTER_S)

    @contextmanager
    def _admin(self) -> Iterator[Any]:
        admin = self._build("admin", KafkaAdminClient, {"request_timeout_ms": int(ANSWER_TIMEOUT_S * 1000)}, {})
        try:
            yield admin
        finally:
            admin.close()


def _operations(told: Mapping[str, Any]) -> frozenset[str] | None:
    names = told.get("authorized_operations")
    return None if names is None else frozenset(names)
