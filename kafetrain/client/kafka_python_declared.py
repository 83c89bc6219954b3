"""A `KafkaPythonClient` for services that say how a group shares its partitions, and what it sees of transactions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

from kafetrain.client.kafka_python import ConnectionSettings, KafkaPythonClient

__all__ = ["BalanceStrategy", "DeclaredClient", "IsolationLevel"]

BalanceStrategy: TypeAlias = Literal["round-robin", "range", "sticky", "cooperative-sticky"]
IsolationLevel: TypeAlias = Literal["read_committed", "read_uncommitted"]

_ASSIGNORS: Mapping[str, type] = {
    "round-robin": RoundRobinPartitionAssignor,
    "range": RangePartitionAssignor,
    "sticky": StickyPartitionAssignor,
    "cooperative-sticky": CooperativeStickyAssignor,
}


class DeclaredClient(KafkaPythonClient):
    """`balance_strategies` and `isolation_level` are those of consumers in `group`; all others are as ever."""

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
            "partition_assignment_strategy": [_ASSIGNORS[name] for name in balance_strategies],
            "isolation_level": isolation_level,
        }

    def _consumer(self, defaults: Mapping[str, Any], ours: Mapping[str, Any]) -> Any:
        declared = self._declared if ours["group_id"] == self._group else {}
        return super()._consumer(defaults, {**ours, **declared})
