"""Fakes for the ports. Small, and only as true as a test needs; the contract suite holds real backends to the ports."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from kafetrain.client.ports import ClientError, Committed, TopicDescription, TopicSpec
from kafetrain.record import TopicPartition

__all__ = ["FakeAdmin", "FakeClock"]

BROKER_DEFAULTS = {
    "cleanup.policy": "delete",
    "delete.retention.ms": "86400000",
    "max.message.bytes": "1048588",
    "min.compaction.lag.ms": "0",
    "min.insync.replicas": "1",
    "retention.bytes": "-1",
    "retention.ms": "604800000",
}


@dataclass
class FakeClock:
    """Time in the test's hands: `wait` passes it at once."""

    seconds: float = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def now_ms(self) -> int:
        return int(self.seconds * 1000)

    def wait(self, seconds: float) -> None:
        self.seconds += seconds


@dataclass
class FakeAdmin:
    """A cluster of topics in memory.

    `failures`: errors that the next calls of a method raise, by its name. `refused`: settings with which a topic cannot
    be created. `secret`: topics whose settings it does not tell. `hidden_looks`: how many descriptions miss what was
    created or grown before. `before`: called at the beginning of a method, to script what others do meanwhile.
    """

    default_replication: int = 1
    refused: frozenset[str] = frozenset()
    hidden_looks: int = 0
    secret: Collection[str] = ()
    failures: dict[str, list[ClientError]] = field(default_factory=dict)
    before: dict[str, Callable[[], None]] = field(default_factory=dict)
    topics: dict[str, TopicDescription] = field(default_factory=dict)
    configs: dict[str, dict[str, str]] = field(default_factory=dict)
    created: list[TopicSpec] = field(default_factory=list)
    grown: list[tuple[str, int]] = field(default_factory=list)
    members: dict[str, int] = field(default_factory=dict)
    closed: bool = False
    _shown: dict[str, TopicDescription] = field(default_factory=dict)
    _looks_left: int = 0

    def add(
        self,
        name: str,
        partitions: int = 3,
        configs: Mapping[str, str] | None = None,
        *,
        replication_factor: int = 1,
        topic_id: str = "",
    ) -> None:
        """A topic that exists."""
        self.topics[name] = TopicDescription(name, partitions, replication_factor, topic_id)
        self.configs[name] = {**BROKER_DEFAULTS, **(configs or {})}
        self._shown[name] = self.topics[name]

    def describe_topics(self, topics: Collection[str]) -> Mapping[str, TopicDescription]:
        self._begin("describe_topics")
        if self._looks_left:
            self._looks_left -= 1
        else:
            self._shown = dict(self.topics)
        return {name: self._shown[name] for name in topics if name in self._shown}

    def topic_configs(self, topics: Collection[str]) -> Mapping[str, Mapping[str, str]]:
        self._begin("topic_configs")
        if untold := sorted(name for name in topics if name in self.secret or name not in self._shown):
            raise ClientError(f"TopicAuthorizationFailed: may not DESCRIBE_CONFIGS of {untold[0]}")
        return {name: dict(self.configs[name]) for name in topics}

    def create_topics(self, topics: Sequence[TopicSpec]) -> None:
        self._begin("create_topics")
        for spec in topics:
            if wrong := sorted(self.refused & spec.configs.keys()):
                raise ClientError(f"{spec.name}: PolicyViolation: {wrong[0]} may not be set")
            if spec.name in self.topics:
                continue
            self.created.append(spec)
            replication = self.default_replication if spec.replication_factor == -1 else spec.replication_factor
            self.topics[spec.name] = TopicDescription(spec.name, spec.partitions, replication)
            self.configs[spec.name] = {**BROKER_DEFAULTS, **spec.configs}
        self._looks_left = self.hidden_looks

    def grow_topic(self, topic: str, partitions: int) -> None:
        self._begin("grow_topic")
        self.grown.append((topic, partitions))
        if self.topics[topic].partitions < partitions:
            self.topics[topic] = replace(self.topics[topic], partitions=partitions)
        self._looks_left = self.hidden_looks

    def committed(self, group: str, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Committed]:
        return {}

    def set_committed(self, group: str, next_offsets: Mapping[TopicPartition, Committed]) -> None:
        raise AssertionError("not expected")

    def group_members(self, group: str) -> int:
        self._begin("group_members")
        return self.members.get(group, 0)

    def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        raise AssertionError("not expected")

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        raise AssertionError("not expected")

    def close(self) -> None:
        self.closed = True

    def _begin(self, method: str) -> None:
        if script := self.before.pop(method, None):
            script()
        if self.failures.get(method):
            raise self.failures[method].pop(0)
