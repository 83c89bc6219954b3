"""The locks of a table as a user sees them: one for each key."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone

from kafetrain.core.entry import State
from kafetrain.core.lock_table import LockTable
from kafetrain.outcome import Lock
from kafetrain.record import MessageId

__all__ = ["locks_of", "utc"]

_LAST_MS = 253_402_300_799_000  # 9999, the last year that a datetime has


def locks_of(table: LockTable, group: str, topic: str) -> Iterator[Lock]:
    """Every key in retry or dead. The mutex that guards the table is the caller's to hold."""
    for partition, locks in table.sources.items():
        for chain in locks.chains.values():
            if not chain.open:
                continue
            head = locks.entries[chain.open[0]]
            dead = head.state is State.DEAD
            yield Lock(
                topic=topic,
                partition=partition,
                key=head.key,
                state=head.state.value,
                head=str(MessageId(group, topic, partition, chain.open[0])),
                pending=len(chain.open) - dead,
                attempt=head.attempt,
                due=utc(head.due_ms),
                first_failure=None if head.first_failure_ms is None else utc(head.first_failure_ms),
                error_type=head.error_type,
                error=head.error,
            )


def utc(ms: int) -> datetime:
    return datetime.fromtimestamp(min(ms, _LAST_MS) / 1000, timezone.utc)
