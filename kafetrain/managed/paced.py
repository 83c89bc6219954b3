"""Fetch no more of a partition while one of its handlers takes too long.

The consumer goes on polling, which keeps its membership, and would collect records meanwhile that nobody can handle
and that another member could. A port around the client's own: the loop's pauses and ours go side by side.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta

from loguru import logger

from kafetrain.client.ports import (
    AdminPort,
    Client,
    Committed,
    ConsumerPort,
    ProducerPort,
    RebalanceEvents,
    TransactionalClient,
    TransactionalProducerPort,
)
from kafetrain.clock import Clock
from kafetrain.record import Record, TopicPartition

__all__ = ["PacedClient", "PacedConsumer", "paced"]

WARN_EVERY_S = 60.0

Overdue = Callable[[], frozenset[TopicPartition]]


def paced(client: Client, group: str, overdue: Overdue, clock: Clock) -> PacedClient:
    """With transactions where the client has them."""
    if isinstance(client, TransactionalClient):
        return _PacedTransactionalClient(client, client, group, overdue, clock)
    return PacedClient(client, group, overdue, clock)


class PacedClient:
    """A `Client` whose consumers of `group` are paced; `overdue` says which partitions are too slow."""

    def __init__(self, client: Client, group: str, overdue: Overdue, clock: Clock) -> None:
        self._client, self._group, self._overdue, self._clock = client, group, overdue, clock

    def group_consumer(self, group: str, *, auto_offset_reset: str, role: str = "") -> ConsumerPort:
        consumer = self._client.group_consumer(group, auto_offset_reset=auto_offset_reset, role=role)
        return PacedConsumer(consumer, self._overdue, self._clock) if group == self._group else consumer

    def reader(self) -> ConsumerPort:
        return self._client.reader()

    def producer(self) -> ProducerPort:
        return self._client.producer()

    def admin(self) -> AdminPort:
        return self._client.admin()


class _PacedTransactionalClient(PacedClient):
    def __init__(
        self, client: Client, transactional: TransactionalClient, group: str, overdue: Overdue, clock: Clock
    ) -> None:
        super().__init__(client, group, overdue, clock)
        self._transactional = transactional

    def transactional_producer(self, id: str, consumer: ConsumerPort) -> TransactionalProducerPort:
        own = consumer.unpaced if isinstance(consumer, PacedConsumer) else consumer
        return self._transactional.transactional_producer(id, own)

    @property
    def delivery_timeout_s(self) -> float:
        return self._transactional.delivery_timeout_s


class PacedConsumer:
    """A `ConsumerPort`. One thread calls it; the rebalance events come on the client's own."""

    def __init__(self, consumer: ConsumerPort, overdue: Overdue, clock: Clock) -> None:
        self._consumer, self._overdue, self._clock = consumer, overdue, clock
        # Guards the two sets, and that a partition is resumed only while it is in the first. Without it: the loop's
        # thread finds a partition to resume; it is revoked and comes back, paused until its locks are restored; now
        # it is resumed, delivers too early, and those records are dropped.
        self._mutex = threading.Lock()
        self._wanted: set[TopicPartition] = set()
        """The loop has resumed them."""
        self._held: set[TopicPartition] = set()
        """Of these: paused by us."""
        self._next_warning = 0.0

    @property
    def unpaced(self) -> ConsumerPort:
        """The client's own."""
        return self._consumer

    def poll(self, timeout: timedelta, max_records: int = 500) -> Mapping[TopicPartition, Sequence[Record]]:
        slow = self._overdue()
        if slow or self._held:
            self._pace(slow)
        return self._consumer.poll(timeout, max_records)

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        with self._mutex:
            self._forget(partitions)
            self._consumer.pause(partitions)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        with self._mutex:
            self._wanted |= set(partitions)
            self._consumer.resume([place for place in partitions if place not in self._held])

    def subscribe(self, topics: Collection[str], events: RebalanceEvents) -> None:
        self._consumer.subscribe(topics, _Forgetting(events, self.forget))

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """They are another member's from now on."""
        with self._mutex:
            self._forget(partitions)

    def _forget(self, partitions: Collection[TopicPartition]) -> None:
        self._wanted -= set(partitions)
        self._held -= set(partitions)

    def _pace(self, slow: frozenset[TopicPartition]) -> None:
        with self._mutex:
            fresh, over = (slow & self._wanted) - self._held, self._held - slow
            self._held = (self._held | fresh) - over
            if fresh:
                self._consumer.pause(fresh)
            if over:
                self._consumer.resume(over)
        now = self._clock.monotonic()
        if fresh and now >= self._next_warning:
            self._next_warning = now + WARN_EVERY_S
            place = min(fresh)
            logger.bind(topic=place.topic, partition=place.partition).warning(
                "a handler takes longer than max_processing_time: its partition fetches no more until it returns"
            )

    # As they are

    def assign(self, positions: Mapping[TopicPartition, int | None]) -> None:
        self._consumer.assign(positions)

    def position(self, partition: TopicPartition) -> int | None:
        return self._consumer.position(partition)

    def seek(self, partition: TopicPartition, next_offset: int) -> None:
        self._consumer.seek(partition, next_offset)

    def commit(self, next_offsets: Mapping[TopicPartition, Committed]) -> None:
        self._consumer.commit(next_offsets)

    def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return self._consumer.end_offsets(partitions)

    def beginning_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return self._consumer.beginning_offsets(partitions)

    def close(self) -> None:
        self._consumer.close()


class _Forgetting:
    """`RebalanceEvents` that also tell of partitions that go, before they have gone."""

    def __init__(self, events: RebalanceEvents, forget: Callable[[Collection[TopicPartition]], None]) -> None:
        self._events, self._forget = events, forget

    def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        self._forget(partitions)
        self._events.assigned(partitions)

    def revoking(
        self, partitions: frozenset[TopicPartition]
    ) -> Callable[[], Mapping[TopicPartition, Committed] | None]:
        self._forget(partitions)
        return self._events.revoking(partitions)

    def lost(self, partitions: frozenset[TopicPartition]) -> None:
        self._forget(partitions)
        self._events.lost(partitions)
