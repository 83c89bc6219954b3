"""What every command needs that ends the locks of a group by itself: nobody of the group may be at work, and what is
written says who wanted it.

With members at work the locks are theirs to end; a command that wrote beside them would be a second owner.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice

from kafetrain.client.ports import AdminPort, ClientError, OutgoingRecord, ProducerPort
from kafetrain.core.control import Audit, audit_headers
from kafetrain.core.entry import State
from kafetrain.core.headers import tombstone_headers
from kafetrain.core.lock_table import LockTable
from kafetrain.errors import KafetrainError, first_line
from kafetrain.record import MessageId, TopicPartition
from kafetrain.settings import Settings

__all__ = ["NO_LOCKS", "LockCount", "count_locks", "refuse_members", "tombstone", "tombstones", "write_all"]

TOGETHER = 500
"""Writes in flight."""


@dataclass(frozen=True, slots=True)
class LockCount:
    """Ids that are open."""

    pending: int = 0
    dead: int = 0

    def __add__(self, other: LockCount) -> LockCount:
        return LockCount(self.pending + other.pending, self.dead + other.dead)


NO_LOCKS = LockCount()


def count_locks(table: LockTable) -> LockCount:
    pending = table.pending_count()
    return LockCount(pending, sum(1 for _ in table.open_ids()) - pending)


def refuse_members(admin: AdminPort, settings: Settings, doing: str) -> None:
    """Raise an error that says to stop the group, where it or its retry group has members."""
    members = {group: admin.group_members(group) for group in (settings.group_id, settings.retry_group_id)}
    busy = [f"{group} has {count} member{'s' * (count != 1)}" for group, count in members.items() if count]
    if busy:
        raise KafetrainError(
            f"{doing} needs the group at rest, and {' and '.join(busy)}: stop all instances and run the command again. "
            f"One that was killed is a member until its session timeout. Nothing was changed."
        )


def tombstone(place: TopicPartition, id: MessageId, key: bytes | None, audit: Audit) -> OutgoingRecord:
    """Ends an id's lock, and says who wanted that."""
    headers = [*tombstone_headers(key), *audit_headers(audit)]
    return OutgoingRecord(place.topic, place.partition, str(id).encode(), None, headers)


def tombstones(
    place: TopicPartition, table: LockTable, group: str, topic: str, audit: Audit, *, state: State | None = None
) -> Iterable[OutgoingRecord]:
    """For every lock of the table, or every one in that state; in source order, as its owners would end them."""
    for partition, offset, entry in sorted(table.open_ids(), key=lambda found: found[:2]):
        if state is None or entry.state is state:
            yield tombstone(place, MessageId(group, topic, partition, offset), entry.key, audit)


def write_all(producer: ProducerPort, records: Iterable[OutgoingRecord], what: str) -> int:
    """Write them, some at a time; durable on return. Returns how many.

    Raises `ClientError` for the first that is not acknowledged: some of those after it may have been written.
    """
    written, rest = 0, iter(records)
    while batch := list(islice(rest, TOGETHER)):
        sent: list[tuple[OutgoingRecord, Future[int]]] = [(record, producer.send(record)) for record in batch]
        for record, future in sent:
            try:
                future.result()
            except ClientError as error:
                raise ClientError(
                    f"a {what} could not be written to {record.topic}[{record.partition}]: {first_line(error)}. What "
                    f"was written before it stays; run the command again, and it goes on from there",
                    retriable=error.retriable,
                ) from error
        written += len(batch)
    return written
