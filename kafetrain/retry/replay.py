"""Replay: dead letters run again, in order, before anything newer of their keys.

The order of the writes is what a crash in the middle depends on. First the retry records, which nobody takes up before
their ids are pending; then the entries of what was parked, highest offset first; the head's entry last. As long as that
one is dead, the control record is obeyed again from its beginning, and nothing of the key can run.

Runs in the background, and shares one look through the dead-letter topic between all keys that are asked for by then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

from loguru import logger

from kafetrain.client.ports import ConsumerPort, OffsetOutOfRangeError
from kafetrain.core.chain import ChainKey, chain_key
from kafetrain.core.control import Control, audit_headers
from kafetrain.core.dead_letter import DeadLetterInfo, decode_dead_letter
from kafetrain.core.entry import Entry
from kafetrain.core.headers import DeadLetterState, Malformed
from kafetrain.errors import PartitionLostError
from kafetrain.record import Record, TopicPartition
from kafetrain.retry.partition import RetryPartition
from kafetrain.topic_setup import PreparedTopics
from kafetrain.tracker.parts import Parts
from kafetrain.tracker.write_path import Work
from kafetrain.tracker.writes import SourceRecord, payload

__all__ = ["Job", "Replay"]

POLL = timedelta(milliseconds=100)
AT_ONCE = 1_000
"""Writes under way together."""


@dataclass(slots=True)
class Job:
    """One key's replay, or one dead letter's."""

    chain: tuple[int, ChainKey]
    control: Control
    key: bytes | None
    lock_offset: int
    """What the retry records wait for: known to whoever reads them, since the control record waits for it too."""
    dead_at: tuple[int, int]
    pending: frozenset[int] | None
    """What of the key is pending behind the dead head, and so has its retry record. None: one dead letter only."""
    letters: dict[int, int] = field(default_factory=dict)
    """Source offset -> offset in the dead-letter topic, of what is to run."""
    result: str = "not replayed: its dead letter was deleted"
    found: bool = False
    """Something of it was put into retry again."""

    @property
    def is_whole_key(self) -> bool:
        return self.pending is not None


class Replay:
    """`run` it once, on a thread that may block. `PartitionLostError`: stopped in between, to be repeated."""

    def __init__(
        self,
        part: RetryPartition,
        topic: PreparedTopics,
        parts: Parts,
        jobs: list[Job],
        open_reader: Callable[[], ConsumerPort],
    ) -> None:
        self._part, self._topic, self._parts = part, topic, parts
        self._jobs, self._open_reader = jobs, open_reader
        self._path = parts.path_of(part.claim)
        self._group = parts.settings.group_id
        self._under_way: deque[Future[Any]] = deque()

    def run(self) -> None:
        reader = self._open_reader()
        try:
            there = self._partitions()
            for number in sorted({job.dead_at[0] for job in self._jobs if job.dead_at[0] < there}):
                place = TopicPartition(self._topic.names.dlq, number)
                jobs = [job for job in self._jobs if job.dead_at[0] == number]
                self._choose(reader, place, jobs)
                self._append(reader, place, jobs)
        finally:
            reader.close()
        self._lock()

    def _partitions(self) -> int:
        """Of the dead-letter topic, as it is now. A control record may name one that is not there."""
        name = self._topic.names.dlq
        described = self._parts.admin.describe_topics([name]).get(name)
        return 0 if described is None else described.partitions

    # Which dead letters

    def _choose(self, reader: ConsumerPort, place: TopicPartition, jobs: list[Job]) -> None:
        keys = {job.chain: job for job in jobs if job.is_whole_key}
        for job in jobs:
            if not job.is_whole_key:
                job.letters = {job.control.id.offset: job.dead_at[1]}
        if not keys:
            return
        changed: dict[tuple[int, ChainKey], dict[int, int]] = {chain: {} for chain in keys}
        for record, info in self._letters(reader, place, min(job.dead_at[1] for job in keys.values())):
            chain = (info.id.partition, chain_key(record.key, info.id.offset))
            found = keys.get(chain)
            if found is None:
                continue
            offset, head = info.id.offset, found.control.id.offset
            if info.state == DeadLetterState.TRANSFORMED:
                if info.command == found.control.audit.command:
                    changed[chain][offset] = record.offset
            elif record.offset == found.dead_at[1] and offset == head:
                found.letters[offset] = record.offset
            elif record.offset < found.dead_at[1] or offset in (found.pending or ()):
                continue  # of an earlier death, which was released; or it still has its lock and its retry record
            elif info.state == DeadLetterState.PARKED:
                found.letters[offset] = record.offset  # twice where a crash came between letter and tombstone
        for chain, job in keys.items():
            for offset, at in changed[chain].items():
                if offset in job.letters:
                    job.letters[offset] = at
            if job.control.id.offset not in job.letters:
                job.letters.clear()
                logger.bind(topic=place.topic, partition=place.partition, offset=job.dead_at[1]).error(
                    "not replayed: the dead letter of this key was deleted; release the key instead"
                )

    def _letters(
        self, reader: ConsumerPort, place: TopicPartition, first: int, last: int | None = None
    ) -> Iterator[tuple[Record, DeadLetterInfo]]:
        """Of this group and topic, from `first` to `last`, or to the present end."""
        reader.assign({place: first})
        end = reader.end_offsets([place])[place]
        if last is not None:
            end = min(end, last + 1)
        while (reader.position(place) or 0) < end:
            self._check()
            try:
                records = reader.poll(POLL).get(place, ())
            except OffsetOutOfRangeError:
                reader.seek(place, reader.beginning_offsets([place])[place])  # older ones were deleted
                continue
            for record in records:
                try:
                    info = decode_dead_letter(record)
                except Malformed:
                    continue  # not ours
                if info.id.group == self._group and info.id.topic == self._topic.names.source:
                    yield record, info

    # What is written

    def _append(self, reader: ConsumerPort, place: TopicPartition, jobs: Iterable[Job]) -> None:
        wanted = {at: job for job in jobs for at in job.letters.values()}
        if not wanted:
            return
        for record, info in self._letters(reader, place, min(wanted), max(wanted)):
            job = wanted.get(record.offset)
            if job is None:
                continue
            if info.topic_id not in (None, self._topic.topic_id):
                job.result = "not replayed: it is of a former topic of this name"
                continue
            value = None if info.null_value else payload(record, "value")
            source = SourceRecord(
                info.id, record.key, value, info.user_headers, info.source_timestamp_ms, transform=info.transform
            )
            entry = Entry(record.key, due_ms=self._parts.clock.now_ms(), log_offset=job.lock_offset)
            self._send(partial(self._path.writes.retry_record, self._topic, source, entry))
            job.found, job.result = True, "replayed"
        self._wait()

    def _lock(self) -> None:
        for job in self._jobs:
            if job.is_whole_key:
                for offset in sorted(job.letters.keys() - {job.control.id.offset}, reverse=True):
                    self._send(self._entry(job, offset))
            elif job.found:
                self._send(partial(self._path.writes.mark_replayed, self._topic, job.control, job.key))
        self._wait()
        for job in self._jobs:
            if job.found:
                self._send(self._entry(job, job.control.id.offset))
        self._wait()

    def _entry(self, job: Job, offset: int) -> Work[Any]:
        id = job.control.id._replace(offset=offset)
        entry = Entry(job.key, due_ms=self._parts.clock.now_ms())
        return partial(self._path.writes.entry, self._topic, id, entry, audit_headers(job.control.audit))

    def _send(self, work: Work[Any]) -> None:
        self._check()
        self._under_way.append(self._path.run(work, self._part.claim))
        if len(self._under_way) >= AT_ONCE:
            self._under_way.popleft().result()

    def _wait(self) -> None:
        while self._under_way:
            self._under_way.popleft().result()

    def _check(self) -> None:
        if self._part.leaving:
            raise PartitionLostError(f"{self._part.place.topic}[{self._part.place.partition}] is being handed over")
