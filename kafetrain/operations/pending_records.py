"""Move the records that wait in the retry topic to the dead-letter topic, and end their locks.

For a group at rest. The retry topic is read from its beginning, since its committed offset says nothing of what is
pending behind it, and a batch at a time: memory does not grow with what waits. A batch's tombstones follow its dead
letters, so that a crash leaves no lock whose record is nowhere, and one batch at most to be written twice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from msgspec import structs

from kafetrain.client.ports import ConsumerPort, OutgoingRecord, ProducerPort
from kafetrain.clock import Clock
from kafetrain.core.control import Audit
from kafetrain.core.entry import Entry, State
from kafetrain.core.headers import DeadLetterState, Malformed, RetryInfo, decode_retry
from kafetrain.core.lock_table import LockTable
from kafetrain.operations.lock_removal import tombstone, write_all
from kafetrain.operations.redirect_view import read_to_end
from kafetrain.record import DlqHeader, MessageId, Record, TopicPartition
from kafetrain.settings import Settings
from kafetrain.topics import AuxiliaryTopics
from kafetrain.tracker.own_loops import source_of
from kafetrain.tracker.writes import DeadLetter, letter_of

__all__ = ["PendingRecords"]


class PendingRecords:
    """Of one group on one topic. `tables`: by redirect partition. `dlq_partitions`: how many it may write to."""

    def __init__(
        self,
        reader: ConsumerPort,
        producer: ProducerPort,
        settings: Settings,
        names: AuxiliaryTopics,
        tables: Mapping[TopicPartition, LockTable],
        clock: Clock,
        *,
        dlq_partitions: int,
    ) -> None:
        self._reader, self._producer, self._settings, self._names = reader, producer, settings, names
        self._tables, self._clock, self._dlq_partitions = tables, clock, dlq_partitions
        self._moved: set[MessageId] = set()

    def move(self, partitions: Collection[int], audit: Audit) -> int:
        """To the dead-letter topic, as `reset`. Returns how many; a record that was there twice counts once."""
        places = [TopicPartition(self._names.retry, number) for number in partitions]
        self._reader.assign(dict.fromkeys(places))
        read_to_end(
            self._reader,
            places,
            lambda place, records: self._move(place, records, audit),
            patience=self._settings.state_restore_timeout,
            clock=self._clock,
        )
        return len(self._moved)

    def _move(self, place: TopicPartition, records: Sequence[Record], audit: Audit) -> None:
        redirect = TopicPartition(self._names.redirect, place.partition)
        letters, ends = [], []
        for record in records:
            try:
                info = decode_retry(record)
            except Malformed:
                continue  # nobody's lock waits for it
            entry = self._pending(redirect, info)
            if entry is None:
                continue
            self._moved.add(info.id)
            letters.append(self._letter(record, info, entry, audit))
            ends.append(tombstone(redirect, info.id, record.key, audit))
        write_all(self._producer, letters, "dead letter")
        write_all(self._producer, ends, "tombstone")

    def _pending(self, redirect: TopicPartition, info: RetryInfo) -> Entry | None:
        """Its entry, where it is a record of ours that is pending and has not been moved."""
        id = info.id
        is_ours = id.group == self._settings.group_id and id.topic == self._names.source
        if not is_ours or info.control is not None or id in self._moved:
            return None
        entry = self._tables[redirect].source(id.partition).entries.get(id.offset)
        return entry if entry is not None and entry.state is State.PENDING else None

    def _letter(self, record: Record, info: RetryInfo, entry: Entry, audit: Audit) -> OutgoingRecord:
        source = source_of(record, info)
        why = DeadLetter(
            DeadLetterState.RESET,
            entry.attempt if entry.readable else info.attempt,
            entry.error_type,
            entry.error,
            entry.first_failure_ms,
        )
        place = TopicPartition(self._names.dlq, source.id.partition % self._dlq_partitions)
        letter = letter_of(source, why, place, self._clock.now_ms())
        command = (DlqHeader.COMMAND, audit.command.encode())
        return structs.replace(letter, headers=[*letter.headers, command])
