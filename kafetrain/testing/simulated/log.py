"""The log of one partition: what was appended, what has vanished since, and how far it may be read.

Offsets are given once. Compaction, deletion and transaction markers leave gaps, and the ends never move back.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter

from kafetrain.record import Headers, TopicPartition, place_of

__all__ = ["PartitionLog", "SimulatedRecord"]


@dataclass(frozen=True, slots=True)
class SimulatedRecord:
    """A `Record`, as it is read. `author`: the name of the client that has written it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp: int = 0
    author: str = ""
    transaction: int | None = None

    def __str__(self) -> str:
        return place_of(self)


class PartitionLog:
    """Not thread-safe: the cluster's mutex guards it."""

    def __init__(self, place: TopicPartition) -> None:
        self.place = place
        self.begin_offset = 0
        self.next_offset = 0
        """The high watermark."""
        self._records: list[SimulatedRecord] = []  # by offset
        self._open: dict[int, int] = {}  # transaction -> its first offset
        self._aborted: set[int] = set()

    @property
    def last_stable_offset(self) -> int:
        """Readers see nothing from here on: a transaction is open."""
        return min(self._open.values(), default=self.next_offset)

    def append(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        timestamp: int,
        author: str,
        transaction: int | None = None,
    ) -> int:
        """Returns the record's offset."""
        offset = self._take_offset()
        if transaction is not None:
            self._open.setdefault(transaction, offset)
        headers = tuple(headers)
        self._records.append(SimulatedRecord(*self.place, offset, key, value, headers, timestamp, author, transaction))
        return offset

    def end_transaction(self, transaction: int, *, commit: bool) -> None:
        """Append its marker, where it has written here."""
        if self._open.pop(transaction, None) is not None:
            self._take_offset()
            if not commit:
                self._aborted.add(transaction)

    def read(self, next_offset: int, at_most: int) -> tuple[list[SimulatedRecord], int]:
        """What readers of committed records see from there on, and the position behind it."""
        stable, found = self.last_stable_offset, list[SimulatedRecord]()
        for record in self._records[self._index(next_offset) :]:
            if record.offset >= stable or len(found) == at_most:
                break
            if record.transaction not in self._aborted:
                found.append(record)
        else:
            return found, max(next_offset, stable)
        if len(found) == at_most:
            return found, found[-1].offset + 1 if found else next_offset
        return found, max(next_offset, stable)

    # What vanishes

    def delete_before(self, offset: int) -> None:
        """DeleteRecords: the log begins there, at its end at most."""
        self.begin_offset = max(self.begin_offset, min(offset, self.next_offset))
        del self._records[: self._index(self.begin_offset)]

    def compact(self, before: int) -> int:
        """Of each key, keep the last record of those below `before`. Returns how many vanished.

        Never from an open transaction on; what was aborted supersedes nothing, and vanishes.
        """
        before = min(before, self.last_stable_offset)
        last = {record.key: record.offset for record in self._counting() if record.offset < before}
        return self._drop(
            lambda r: (
                r.offset < before
                and (r.transaction in self._aborted or (r.key is not None and last[r.key] != r.offset))
            )
        )

    def remove_tombstones(self, before: int) -> int:
        """Those below `before` that are their key's oldest record. Returns how many vanished."""
        before, first = min(before, self.last_stable_offset), dict[bytes | None, int]()
        for record in self._counting():
            first.setdefault(record.key, record.offset)
        return self._drop(lambda r: r.offset < before and r.value is None and first.get(r.key) == r.offset)

    def _counting(self) -> Iterator[SimulatedRecord]:
        return (record for record in self._records if record.transaction not in self._aborted)

    def _drop(self, vanishes: Callable[[SimulatedRecord], bool]) -> int:
        kept = [record for record in self._records if not vanishes(record)]
        dropped, self._records = len(self._records) - len(kept), kept
        return dropped

    def _take_offset(self) -> int:
        self.next_offset += 1
        return self.next_offset - 1

    def _index(self, offset: int) -> int:
        return bisect_left(self._records, offset, key=attrgetter("offset"))
