"""Reading a topic once, from any place to its present end or backwards from there, in the order of time.

A partition is read piece by piece, so that a few pieces are all that is in memory, whatever the topic's size. The
partitions are merged by time; within one, offsets alone decide.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import TypeAlias

from kafetrain.client.ports import Client, ConsumerPort, OffsetOutOfRangeError
from kafetrain.clock import Clock, SystemClock
from kafetrain.errors import TransientError
from kafetrain.record import Record, TopicPartition

__all__ = ["Progress", "read_one", "scan_topic"]

Progress: TypeAlias = Callable[[int, int], object]
"""Called with how many offsets are done, and of how many."""

_POLL = timedelta(milliseconds=100)
_PIECE = 1000
_PIECE_BYTES = 4 * 1024 * 1024


def scan_topic(
    client: Client,
    topic: str,
    start: Mapping[int, int | None],
    *,
    newest_first: bool = False,
    patience: timedelta = timedelta(seconds=30),
    progress: Progress | None = None,
    clock: Clock | None = None,
) -> Iterator[Record]:
    """Every record of these partitions, from the given offset (None: from the beginning) to the end as it is now.

    Raises `TransientError` where reading makes no progress for `patience`, `ClientError`.
    """
    reader = client.reader()
    try:
        places = {TopicPartition(topic, partition): offset for partition, offset in start.items()}
        begin, end = reader.beginning_offsets(places), reader.end_offsets(places)
        spans = {place: (max(begin[place], offset or 0), end[place]) for place, offset in places.items()}
        scan = _Scan(reader, spans, patience, progress, clock or SystemClock())
        pieces = [scan.backwards(place) if newest_first else scan.forwards(place) for place in sorted(places)]
        yield from heapq.merge(*pieces, key=lambda record: record.timestamp, reverse=newest_first)
    finally:
        reader.close()


def read_one(client: Client, place: TopicPartition, offset: int, patience: timedelta) -> Record | None:
    """The record at an offset; None: nothing is there (any more, or yet)."""
    reader = client.reader()
    try:
        begin, end = reader.beginning_offsets([place])[place], reader.end_offsets([place])[place]
        if not begin <= offset < end:
            return None
        scan = _Scan(reader, {place: (offset, offset + 1)}, patience, None, SystemClock())
        return next((record for record in scan.forwards(place) if record.offset == offset), None)
    finally:
        reader.close()


class _Scan:
    def __init__(
        self,
        reader: ConsumerPort,
        spans: Mapping[TopicPartition, tuple[int, int]],
        patience: timedelta,
        progress: Progress | None,
        clock: Clock,
    ) -> None:
        self._reader, self._spans, self._clock = reader, spans, clock
        self._patience_s = patience.total_seconds()
        self._progress = progress
        self._done, self._total = 0, sum(max(0, end - begin) for begin, end in spans.values())

    def forwards(self, place: TopicPartition) -> Iterator[Record]:
        next_offset, end = self._spans[place]
        size = _PIECE
        while next_offset < end:
            until = min(end, next_offset + size)
            records = self._piece(place, next_offset, until)
            size = _fitting(size, records)
            yield from records
            next_offset = until

    def backwards(self, place: TopicPartition) -> Iterator[Record]:
        begin, until = self._spans[place]
        size = _PIECE
        while until > begin:
            since = max(begin, until - size)
            records = self._piece(place, since, until)
            size = _fitting(size, records)
            yield from reversed(records)
            until = since

    def _piece(self, place: TopicPartition, begin: int, end: int) -> list[Record]:
        reader, found = self._reader, list[Record]()
        reader.assign({place: begin})
        since, seen = self._clock.monotonic(), begin
        while (position := reader.position(place) or 0) < end:
            if position > seen:
                since, seen = self._clock.monotonic(), position
            elif self._clock.monotonic() - since >= self._patience_s:
                raise TransientError(
                    f"reading {place.topic}[{place.partition}] made no progress: at offset {seen} of {end}. Is a "
                    f"broker reachable, and may this user read {place.topic}?"
                )
            try:
                batch = reader.poll(_POLL).get(place, ())
            except OffsetOutOfRangeError:  # purged meanwhile
                start = reader.beginning_offsets([place])[place]
                if start >= end:
                    break
                reader.seek(place, start)
                continue
            found.extend(record for record in batch if begin <= record.offset < end)
        self._done += end - begin
        if self._progress is not None:
            self._progress(self._done, self._total)
        return found


def _fitting(size: int, records: list[Record]) -> int:
    """How many offsets the next piece may have, given what is in the last one."""
    weight = sum(len(record.key or b"") + len(record.value or b"") for record in records)
    return max(1, min(_PIECE, size * _PIECE_BYTES // max(1, weight)))
