"""How a group stands on a topic, in numbers: what `kafetrain inspect` shows. Pure: what was read goes in.

The log does not tell what runs: a key that is due is one that runs, or that waits for a free thread.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from kafetrain.outcome import Lock

__all__ = ["Figures", "Offsets", "PartitionFigures", "figures_of", "total_of"]


@dataclass(frozen=True, slots=True)
class Offsets:
    """Where a partition ends, and what its group has committed there; None: nothing."""

    end: int
    committed: int | None = None

    @property
    def lag(self) -> int:
        """All of it where nothing is committed, also what retention has taken."""
        return max(0, self.end - (self.committed or 0))


@dataclass(frozen=True, slots=True)
class PartitionFigures:
    """One source partition; of `total_of`, all of them."""

    partition: int
    source: Offsets | None
    """None: a partition that only locks of a former, larger topic speak of."""
    retry: Offsets | None
    """None: it has no retry partition of its own number."""
    pending_keys: int = 0
    pending_records: int = 0
    dead_keys: int = 0
    oldest_failure: datetime | None = None
    """Of what is pending."""
    next_due: datetime | None = None
    """Of what is pending; may be past."""


@dataclass(frozen=True, slots=True)
class Figures:
    """A group at one moment."""

    topic: str
    group: str
    at: datetime
    members: int
    retry_members: int
    partitions: tuple[PartitionFigures, ...]
    due: tuple[Lock, ...]
    """Keys that run or may run, longest due first."""
    dead: tuple[Lock, ...]
    """Dead keys, latest first failure first."""


def figures_of(
    topic: str,
    group: str,
    at: datetime,
    *,
    members: int,
    retry_members: int,
    source: Mapping[int, Offsets],
    retry: Mapping[int, Offsets],
    locks: Sequence[Lock],
) -> Figures:
    """`source`, `retry`: by partition."""
    by_partition: defaultdict[int, list[Lock]] = defaultdict(list)
    for lock in locks:
        by_partition[lock.partition].append(lock)
    rows = [
        _row(partition, source.get(partition), retry.get(partition), by_partition[partition])
        for partition in sorted(source.keys() | by_partition.keys())
    ]
    due = [lock for lock in locks if lock.state == "pending" and lock.due <= at]
    dead = [lock for lock in locks if lock.state == "dead"]
    never = datetime.min.replace(tzinfo=at.tzinfo)
    return Figures(
        topic,
        group,
        at,
        members,
        retry_members,
        tuple(rows),
        due=tuple(sorted(due, key=lambda lock: lock.due)),
        dead=tuple(sorted(dead, key=lambda lock: lock.first_failure or never, reverse=True)),
    )


def total_of(rows: Iterable[PartitionFigures]) -> PartitionFigures:
    """All rows as one. Its offsets are only good for their lag."""
    rows = list(rows)
    return PartitionFigures(
        partition=-1,
        source=Offsets(sum(row.source.lag for row in rows if row.source is not None)),
        retry=Offsets(sum(row.retry.lag for row in rows if row.retry is not None)),
        pending_keys=sum(row.pending_keys for row in rows),
        pending_records=sum(row.pending_records for row in rows),
        dead_keys=sum(row.dead_keys for row in rows),
        oldest_failure=_first(row.oldest_failure for row in rows),
        next_due=_first(row.next_due for row in rows),
    )


def _row(partition: int, source: Offsets | None, retry: Offsets | None, locks: list[Lock]) -> PartitionFigures:
    pending = [lock for lock in locks if lock.state == "pending"]
    return PartitionFigures(
        partition,
        source,
        retry,
        pending_keys=len(pending),
        pending_records=sum(lock.pending for lock in locks),  # behind a dead one too, until they are parked
        dead_keys=len(locks) - len(pending),
        oldest_failure=_first(lock.first_failure for lock in pending),
        next_due=_first(lock.due for lock in pending),
    )


def _first(times: Iterable[datetime | None]) -> datetime | None:
    return min((time for time in times if time is not None), default=None)
