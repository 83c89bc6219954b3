"""A `ConfluentClient` for services that say how a group shares its partitions, and what it sees of transactions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kafetrain.client.confluent import ConfluentClient
from kafetrain.client.connection import ConnectionSettings
from kafetrain.client.kafka_python_declared import BalanceStrategy, IsolationLevel

__all__ = ["DeclaredConfluentClient"]

_ASSIGNORS: Mapping[str, str] = {
    "round-robin": "roundrobin",
    "range": "range",
    "cooperative-sticky": "cooperative-sticky",
}


class DeclaredConfluentClient(ConfluentClient):
    """`balance_strategies`, which must be librdkafka's, and `isolation_level` are those of consumers in `group`; all
    others are as ever."""

    def __init__(
        self,
        settings: ConnectionSettings,
        group: str,
        balance_strategies: Sequence[BalanceStrategy],
        isolation_level: IsolationLevel,
    ) -> None:
        super().__init__(settings)
        self._group = group
        self._declared = {
            # The group takes the first that all of its members know.
            "partition.assignment.strategy": ",".join(_ASSIGNORS[name] for name in balance_strategies),
            "isolation.level": isolation_level,
        }

    def _consumer(self, defaults: Mapping[str, Any], ours: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
        declared = self._declared if ours["group.id"] == self._group else {}
        return super()._consumer(defaults, {**ours, **declared})
