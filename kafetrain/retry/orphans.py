"""Orphans: locks whose record never reached the retry topic, because its writer crashed between the two.

Most such records are delivered again, and get their retry record then. Only where the source was committed past one
(its partition was skipped ahead) nothing will ever come; its lock would stop its key for good.

The order of the look-ups is what makes the check safe: the source's committed offset, *then* the retry partition's end,
then reading up to it. A record below that offset had its retry record written before the commit, so it lies below
that end. The other way round, a record redirected in between would look like an orphan, and be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from itertools import islice

from kafetrain.client.ports import AdminPort, ClientError
from kafetrain.clock import Clock
from kafetrain.core.entry import Entry
from kafetrain.core.schedule import SourcePlace
from kafetrain.record import TopicPartition
from kafetrain.retry.partition import RetryPartition

__all__ = ["OrphanCheck"]

FIRST_AFTER_S = 2.0
AT_MOST_EVERY_S = 60.0
LOOK_AT = 2_000
"""Ids in one step: there may be a million, and other keys' retries come due meanwhile."""


@dataclass(frozen=True, slots=True)
class _Note:
    committed: dict[int, int]
    """Of the group, by source partition."""
    retry_end: int
    """Of the retry partition, read after that."""


class OrphanCheck:
    """Of one retry partition. The loop's thread owns it; the look-ups run in the background."""

    def __init__(self, partition: RetryPartition, admin: AdminPort, group: str, clock: Clock) -> None:
        self._partition, self._admin, self._group, self._clock = partition, admin, group, clock
        self._interval_s = FIRST_AFTER_S
        self._next_s = clock.monotonic() + FIRST_AFTER_S
        self._noting: Future[_Note] | None = None
        self._note: _Note | None = None
        self._to_look_at: Iterator[SourcePlace] | None = None
        self._found = 0

    def drop(self) -> None:
        """Forget a check that has begun: what it noted does not hold any more."""
        self._noting = self._note = self._to_look_at = None

    def step(self, background: Executor, read_to: int | None, locked: Callable[[], int]) -> bool:
        """Advance. True when there is something to `look` at: everything up to the noted end has been read.

        `locked`: how many locks there are; nothing is looked up while each has its record.
        """
        if self._note is not None:
            return read_to is not None and read_to >= self._note.retry_end
        if self._noting is not None:
            if self._noting.done():
                try:
                    self._note = self._noting.result()
                except ClientError:
                    self._wait_longer()
                self._noting = None
        elif self._clock.monotonic() >= self._next_s:
            part = self._partition
            if locked() > part.schedule.held_count + part.waiting_count:
                self._noting = background.submit(self._look_up)
            else:
                self._next_s = self._clock.monotonic() + self._interval_s
        return False

    def look(self) -> list[tuple[int, int, Entry]]:
        """Source partition, offset and entry of the orphans among the next ids. With the tracker's mutex held.

        After the last ids the check is over: the next one is soon where this found something, later where it did not.
        """
        if self._note is None:
            return []
        if self._to_look_at is None:
            self._to_look_at, self._found = self._partition.open_places(), 0
        places = tuple(islice(self._to_look_at, LOOK_AT))
        orphans = self._partition.orphans_among(places, self._note.committed)
        self._found += len(orphans)
        if len(places) < LOOK_AT:
            self._note = self._to_look_at = None
            if self._found:
                self._interval_s = FIRST_AFTER_S
                self._next_s = self._clock.monotonic() + FIRST_AFTER_S
            else:
                self._wait_longer()
        return orphans

    def _wait_longer(self) -> None:
        self._interval_s = min(self._interval_s * 2, AT_MOST_EVERY_S)
        self._next_s = self._clock.monotonic() + self._interval_s

    def _look_up(self) -> _Note:
        part = self._partition
        source = part.claim.topic.names.source
        places = [TopicPartition(source, number) for number in _sources(part)]
        committed = {p.partition: c.next_offset for p, c in self._admin.committed(self._group, places).items()}
        return _Note(committed, self._admin.end_offsets([part.place])[part.place])


def _sources(part: RetryPartition) -> Iterable[int]:
    return tuple(part.table.sources)
