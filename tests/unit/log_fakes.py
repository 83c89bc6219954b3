"""A cluster whose topics hold records, in memory: a reader without a group, a producer, and the admin of `fakes`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from kafetrain.client.ports import ClientError, OffsetOutOfRangeError, OutgoingRecord
from kafetrain.record import Headers, TopicPartition
from tests.unit.fakes import FakeAdmin, FakeClock

__all__ = ["FakeLogClient", "FakeReader", "LogRecord"]


@dataclass
class LogRecord:
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp: int = 0


@dataclass
class FakeReader:
    """Reads the client's log, two records a poll. It cannot join a group."""

    client: FakeLogClient
    closed: bool = False
    _positions: dict[TopicPartition, int | None] = field(default_factory=dict)

    def assign(self, positions: Mapping[TopicPartition, int | None]) -> None:
        self._positions = dict(positions)

    def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return {place: self._end(place) for place in partitions}

    def beginning_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return {place: self.client.beginning.get(place, 0) for place in partitions}

    def position(self, partition: TopicPartition) -> int | None:
        return self._positions[partition]

    def seek(self, partition: TopicPartition, next_offset: int) -> None:
        self._positions[partition] = next_offset

    def poll(self, timeout: timedelta, max_records: int = 500) -> Mapping[TopicPartition, list[LogRecord]]:
        if self.client.stalled:
            self.client.clock.wait(timeout.total_seconds())
            return {}
        found: dict[TopicPartition, list[LogRecord]] = {}
        for place, position in self._positions.items():
            if (position or 0) < self.client.beginning.get(place, 0):
                raise OffsetOutOfRangeError([place])
        for place, position in self._positions.items():
            start = 0 if position is None else position
            records = [record for record in self.client.log.get(place, []) if record.offset >= start][:2]
            if records:
                found[place] = records
            self._positions[place] = records[-1].offset + 1 if records else self._end(place)
        if not found:
            self.client.clock.wait(timeout.total_seconds())
        return found

    def close(self) -> None:
        self.closed = True

    def _end(self, place: TopicPartition) -> int:
        log = self.client.log.get(place)
        return log[-1].offset + 1 if log else self.client.beginning.get(place, 0)


@dataclass
class FakeProducer:
    """Appends to the client's log at once, and tells whoever listens."""

    client: FakeLogClient
    closed: bool = False

    def send(self, record: OutgoingRecord) -> Future[int]:
        future: Future[int] = Future()
        if self.client.refusal is not None:
            future.set_exception(self.client.refusal)
            return future
        offset = self.client.append(record.topic, record.partition, record.key, record.value, record.headers)
        self.client.sent.append(self.client.log[TopicPartition(record.topic, record.partition)][-1])
        future.set_result(offset)
        self.client.obey(self.client.sent[-1])
        return future

    def flush(self, timeout: timedelta) -> None:
        pass

    def close(self, timeout: timedelta) -> None:
        self.closed = True


@dataclass
class FakeLogClient:
    """A `Client`. `obey`: called with each record that was sent, to play the consumers' part."""

    cluster: FakeAdmin = field(default_factory=FakeAdmin)
    clock: FakeClock = field(default_factory=FakeClock)
    log: dict[TopicPartition, list[LogRecord]] = field(default_factory=dict)
    beginning: dict[TopicPartition, int] = field(default_factory=dict)
    stalled: bool = False
    refusal: ClientError | None = None
    readers: list[FakeReader] = field(default_factory=list)
    producers: list[FakeProducer] = field(default_factory=list)
    sent: list[LogRecord] = field(default_factory=list)

    def obey(self, record: LogRecord) -> None:
        pass

    def append(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        *,
        gap: int = 0,
        timestamp: int = 0,
    ) -> int:
        log = self.log.setdefault(TopicPartition(topic, partition), [])
        offset = (log[-1].offset + 1 if log else 0) + gap
        log.append(LogRecord(topic, partition, offset, key, value, headers, timestamp))
        return offset

    def admin(self) -> Any:
        return self.cluster

    def reader(self) -> Any:
        self.readers.append(FakeReader(self))
        return self.readers[-1]

    def producer(self) -> Any:
        self.producers.append(FakeProducer(self))
        return self.producers[-1]

    def group_consumer(self, group: str, *, auto_offset_reset: str, role: str = "") -> Any:
        raise AssertionError("it must not join a group")
