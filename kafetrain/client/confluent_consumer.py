"""The consumer port on confluent-kafka's `Consumer`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from loguru import logger

from kafetrain.client.confluent_admin import ConfluentAdmin
from kafetrain.client.confluent_errors import AUTH_ERRORS, OUT_OF_RANGE, client_error, is_retriable
from kafetrain.client.confluent_inbox import Inbox, Item
from kafetrain.client.confluent_io import ConsumerThread
from kafetrain.client.confluent_membership import Membership
from kafetrain.client.confluent_partitions import OwnPartitions
from kafetrain.client.confluent_requests import Requests
from kafetrain.client.ports import (
    ClientError,
    Committed,
    ConsumerPort,
    NotOwnerError,
    OffsetOutOfRangeError,
    RebalanceEvents,
)
from kafetrain.record import Record, TopicPartition

__all__ = ["ConfluentConsumer", "has_member"]

BEGINNING = -2
COMMIT_TIMEOUT_MS = 5_000
CLOSE_TIMEOUT_MS = 5_000
"""What `close` waits at most for work in flight and a last commit."""

LEAVE_TIMEOUT_MS = 1_000


class ConfluentConsumer(ConsumerPort):
    """A `ConsumerPort`. A thread of its own consumes ahead of `poll`, and tells the `RebalanceEvents`.

    While `revoking` waits for work in flight, heartbeats go on, `poll` returns nothing within its timeout, and `commit`
    works. That wait ends when the group gives this member up: `max.poll.interval.ms` after it began at the latest; the
    partitions are `lost` then.
    """

    def __init__(
        self,
        consumer: Any,
        group: str | None,
        build_admin: Callable[[], ConfluentAdmin],
        *,
        begins_at_end: bool = False,
        is_cooperative: bool = False,
        max_poll_interval_s: float = float("inf"),
    ) -> None:
        self._name = name = "the reader" if group is None else f"group {group}"
        self._has_group = group is not None
        self._build_admin = build_admin
        self._admin: ConfluentAdmin | None = None  # built when offsets are asked for
        self._inbox, requests = Inbox(), Requests(name)
        self._partitions = OwnPartitions(
            consumer,
            name,
            self._inbox,
            lambda places: self._own_admin().committed(group or "", places),
            begins_at_end=begins_at_end,
        )
        self._membership = Membership(
            consumer,
            name,
            self._inbox,
            self._partitions,
            requests,
            is_cooperative=is_cooperative,
            max_poll_interval_s=max_poll_interval_s,
        )
        self._thread = ConsumerThread(consumer, name, self._inbox, self._partitions, self._membership, requests)
        self._assigned: set[TopicPartition] = set()  # without a group

    def subscribe(self, topics: Collection[str], events: RebalanceEvents) -> None:
        self._thread.subscribe(topics, events)

    def assign(self, positions: Mapping[TopicPartition, int | None]) -> None:
        gone = self._assigned - positions.keys()
        anew = {
            place: BEGINNING if next_offset is None else next_offset
            for place, next_offset in positions.items()
            if next_offset is not None or place not in self._assigned
        }
        gone_or_moved = gone | (self._assigned & anew.keys())
        self._assigned = set(positions)
        self._inbox.forget(gone)
        for place, next_offset in anew.items():
            self._inbox.move(place, None if next_offset == BEGINNING else next_offset)
        self._thread.post(partial(self._partitions.reassign, gone_or_moved, anew))
        self._thread.start()

    def poll(self, timeout: timedelta, max_records: int = 500) -> Mapping[TopicPartition, Sequence[Record]]:
        self._thread.polled()
        give_up_at = time.monotonic() + timeout.total_seconds()
        batches, failures = self._inbox.take(give_up_at, max_records, self._thread.over)
        self._raise(failures)
        if not batches and self._thread.failure is not None and not self._thread.closing.is_set():
            raise self._thread.refusal(f"polling for {self._name}") from self._thread.failure
        return batches

    def position(self, partition: TopicPartition) -> int | None:
        return self._inbox.position(partition)

    def seek(self, partition: TopicPartition, next_offset: int) -> None:
        if next_offset < 0:
            raise ValueError(f"an offset is not negative: {next_offset}")
        if partition not in (self._partitions.ours if self._has_group else self._assigned):
            raise NotOwnerError(f"{_name(partition)} is not assigned to {self._name}")
        self._inbox.move(partition, next_offset)
        if self._has_group:
            self._thread.post(partial(self._partitions.seek, partition, next_offset))
        else:  # the library takes no seek where the position was out of range
            self._thread.post(partial(self._partitions.reassign, [partition], {partition: next_offset}))

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self._inbox.pause(self._known(partitions))

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        known = self._known(partitions)
        self._inbox.resume(known)
        self._thread.post(partial(self._partitions.resume, known))

    def commit(self, next_offsets: Mapping[TopicPartition, Committed]) -> None:
        if not next_offsets:
            return
        doing = f"committing for {self._name}"
        self._thread.call(partial(self._membership.commit, next_offsets), COMMIT_TIMEOUT_MS / 1000, doing)

    def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return self._own_admin().end_offsets(partitions)

    def beginning_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return self._own_admin().beginning_offsets(partitions)

    def membership(self) -> bytes:
        """The library's group metadata, for its transactions. Any thread. `NotOwnerError`: no member at the moment."""
        found = self._membership.metadata
        # Without generation and member a broker takes any transaction: that is how clients work that know no groups.
        if found is None or not has_member(found):
            raise NotOwnerError(f"this is no member of {self._name} at the moment")
        return found

    def close(self) -> None:
        if self._thread.closing.is_set():
            return
        self._thread.close(CLOSE_TIMEOUT_MS / 1000, LEAVE_TIMEOUT_MS / 1000)
        if self._admin is not None:
            self._admin.close()

    def _known(self, partitions: Collection[TopicPartition]) -> list[TopicPartition]:
        ours = self._partitions.ours if self._has_group else self._assigned
        return [partition for partition in partitions if partition in ours]

    def _own_admin(self) -> ConfluentAdmin:
        if self._admin is None:
            self._admin = self._build_admin()
        return self._admin

    def _raise(self, failures: Collection[Item]) -> None:
        """What cannot be passed over; the rest is the library's to mend."""
        beyond = {item.place for item in failures if item.failure.code() in OUT_OF_RANGE}
        if beyond:
            raise OffsetOutOfRangeError(beyond)
        for item in failures:
            error = item.failure
            if not self._has_group and "GROUP" in error.name():
                continue  # the library asks about the group that it must be given a name of
            if error.fatal() or error.code() in AUTH_ERRORS or not is_retriable(error):
                raise client_error(error, f"polling for {self._name}")
            logger.debug("polling for {} will go on: {}", self._name, error)


def has_member(metadata: bytes) -> bool:
    """It is `CGMDv2:`, the generation, and strings that end with a zero: group, member, instance."""
    version, _, rest = metadata.partition(b":")
    if version != b"CGMDv2":
        raise ClientError("this version of confluent-kafka tells the membership in a form that is not known here")
    _, member, *_ = rest[4:].split(b"\0")
    return int.from_bytes(rest[:4], sys.byteorder, signed=True) >= 0 and bool(member)


def _name(partition: TopicPartition) -> str:
    return f"{partition.topic}[{partition.partition}]"
