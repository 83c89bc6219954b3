"""The admin port on a simulated cluster."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kafetrain.client.ports import ClientError, Committed, NotOwnerError, TopicDescription, TopicSpec
from kafetrain.record import TopicPartition
from kafetrain.testing.simulated.core import BROKER_DEFAULTS
from kafetrain.testing.simulated.faults import Request

if TYPE_CHECKING:
    from kafetrain.testing.simulated.core import ClusterCore, Instance

__all__ = ["SimulatedAdmin"]


class SimulatedAdmin:
    """An `AdminPort`. Nothing is tried again: a scripted fault is seen as it is."""

    def __init__(self, core: ClusterCore, instance: Instance) -> None:
        self._core, self._instance = core, instance

    def describe_topics(self, topics: Collection[str]) -> Mapping[str, TopicDescription]:
        with self._asking(Request.DESCRIBE, topics):
            found = [self._core.topics[name] for name in topics if name in self._core.topics]
            return {topic.name: TopicDescription(topic.name, len(topic.logs), 1, topic.id) for topic in found}

    def topic_configs(self, topics: Collection[str]) -> Mapping[str, Mapping[str, str]]:
        with self._asking(Request.CONFIGS, topics):
            if missing := sorted(set(topics) - self._core.topics.keys()):
                raise ClientError(f"there are no settings of {', '.join(missing)}: it does not exist")
            return {name: BROKER_DEFAULTS | self._core.topics[name].configs for name in topics}

    def create_topics(self, topics: Sequence[TopicSpec]) -> None:
        with self._asking(Request.CREATE, [topic.name for topic in topics]):
            for topic in topics:
                self._core.create(topic.name, topic.partitions, topic.configs)

    def grow_topic(self, topic: str, partitions: int) -> None:
        with self._asking(Request.GROW, [topic]):
            found = self._core.topics.get(topic)
            if found is None:
                raise ClientError(f"growing {topic}: it does not exist")
            if partitions > len(found.logs):
                found.grow(partitions)
                self._core.rebalance_groups_of(topic)

    def committed(self, group: str, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Committed]:
        with self._asking(Request.COMMITTED, {place.topic for place in partitions}):
            known = self._core.group(group).committed
            return {place: known[place] for place in partitions if place in known}

    def set_committed(self, group: str, next_offsets: Mapping[TopicPartition, Committed]) -> None:
        if not next_offsets:
            return
        with self._asking(Request.COMMIT, {place.topic for place in next_offsets}):
            found = self._core.group(group)
            if found.members:
                raise NotOwnerError(f"not committed: group {group} has members")
            found.committed |= next_offsets

    def group_members(self, group: str) -> int:
        with self._asking(Request.MEMBERS):
            return len(self._core.group(group).members)

    def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        with self._asking(Request.OFFSETS, {place.topic for place in partitions}):
            return {place: self._core.log(place).next_offset for place in partitions}

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        with self._asking(Request.DELETE_RECORDS, {place.topic for place in before}):
            for place, offset in before.items():
                log, topic = self._core.log(place), self._core.topics[place.topic]
                if "delete" not in topic.config("cleanup.policy"):
                    raise ClientError(f"POLICY_VIOLATION: {place.topic} is only compacted")
                if offset > log.next_offset:
                    raise ClientError(f"OFFSET_OUT_OF_RANGE: {place.topic} ends at {log.next_offset}")
                log.delete_before(offset)

    def close(self) -> None:
        pass

    @contextmanager
    def _asking(self, request: Request, topics: Collection[str] = ()) -> Iterator[None]:
        lost = self._core.ask(self._instance, request, topics)
        with self._core.mutex:
            yield
        self._core.wake()
        if lost is not None:
            raise lost
