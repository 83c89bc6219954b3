"""A cluster of topics in memory, as far as commands that read and write by themselves need one: no groups to join."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from kafetrain.client.ports import ClientError, Committed, NotOwnerError, OutgoingRecord, TopicDescription
from kafetrain.record import Headers, TopicPartition

__all__ = ["MemoryCluster", "Stored"]


@dataclass(frozen=True)
class Stored:
    """A record as it is read."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp: int = 0


@dataclass
class MemoryCluster:
    """A `Client` for commands.

    `writes_left`: how many more writes succeed; the next ones fail. None: all do. `commits_left`: likewise.
    """

    topics: dict[str, TopicDescription] = field(default_factory=dict)
    logs: dict[TopicPartition, list[Stored]] = field(default_factory=dict)
    commits: dict[tuple[str, TopicPartition], Committed] = field(default_factory=dict)
    members: dict[str, int] = field(default_factory=dict)
    writes_left: int | None = None
    commits_left: int | None = None
    writes: int = 0
    open_clients: int = 0

    def add(self, topic: str, partitions: int, topic_id: str = "") -> None:
        self.topics[topic] = TopicDescription(topic, partitions, 1, topic_id or f"id-{topic}")

    def append(self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Headers = ()) -> int:
        """Returns the offset."""
        log = self.logs.setdefault(TopicPartition(topic, partition), [])
        log.append(Stored(topic, partition, len(log), key, value, tuple(headers), 1_000 + len(log)))
        return len(log) - 1

    def read(self, topic: str) -> list[Stored]:
        return [record for place, log in sorted(self.logs.items()) if place.topic == topic for record in log]

    def contents(self) -> dict[str, Any]:
        """All that a command could have changed."""
        return {"logs": {place: list(log) for place, log in self.logs.items()}, "commits": dict(self.commits)}

    # Client

    def admin(self) -> Any:
        return _Admin(self)

    def reader(self) -> Any:
        return _Reader(self)

    def producer(self) -> Any:
        return _Producer(self)

    def group_consumer(self, group: str, *, auto_offset_reset: str, role: str = "") -> Any:
        raise AssertionError("it must not join a group")

    def end(self, place: TopicPartition) -> int:
        return len(self.logs.get(place, ()))


class _Connected:
    def __init__(self, cluster: MemoryCluster) -> None:
        self._cluster = cluster
        cluster.open_clients += 1

    def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return {place: self._cluster.end(place) for place in partitions}

    def close(self, timeout: timedelta | None = None) -> None:
        self._cluster.open_clients -= 1


class _Reader(_Connected):
    """Two records of a partition a poll."""

    _positions: dict[TopicPartition, int]

    def assign(self, positions: Mapping[TopicPartition, int | None]) -> None:
        known = getattr(self, "_positions", {})
        self._positions = {place: known.get(place, 0) if at is None else at for place, at in positions.items()}

    def position(self, partition: TopicPartition) -> int | None:
        return self._positions[partition]

    def beginning_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    def poll(self, timeout: timedelta, max_records: int = 500) -> Mapping[TopicPartition, list[Stored]]:
        found = {}
        for place, at in self._positions.items():
            if records := self._cluster.logs.get(place, [])[at : at + 2]:
                found[place] = records
                self._positions[place] = at + len(records)
        return found


class _Producer(_Connected):
    def send(self, record: OutgoingRecord) -> Future[int]:
        future: Future[int] = Future()
        if self._cluster.writes_left == 0:
            future.set_exception(ClientError("the broker is gone", retriable=True))
            return future
        if self._cluster.writes_left is not None:
            self._cluster.writes_left -= 1
        self._cluster.writes += 1
        assert record.partition < self._cluster.topics[record.topic].partitions
        assert record.key is not None or record.value is not None
        offset = self._cluster.append(record.topic, record.partition, record.key, record.value, record.headers)
        future.set_result(offset)
        return future


class _Admin(_Connected):
    def describe_topics(self, topics: Collection[str]) -> Mapping[str, TopicDescription]:
        return {name: self._cluster.topics[name] for name in topics if name in self._cluster.topics}

    def committed(self, group: str, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Committed]:
        return {p: self._cluster.commits[group, p] for p in partitions if (group, p) in self._cluster.commits}

    def set_committed(self, group: str, next_offsets: Mapping[TopicPartition, Committed]) -> None:
        if not next_offsets:
            return
        if self.group_members(group):
            raise NotOwnerError(f"{group} has members")
        if self._cluster.commits_left == 0:
            raise ClientError("the coordinator is gone", retriable=True)
        if self._cluster.commits_left is not None:
            self._cluster.commits_left -= 1
        self._cluster.commits |= {(group, place): at for place, at in next_offsets.items()}

    def group_members(self, group: str) -> int:
        return self._cluster.members.get(group, 0)
