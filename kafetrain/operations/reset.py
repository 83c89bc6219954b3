"""End the locks of a topic's former self, after it was deleted and created again.

Message ids hold no topic id, so a lock of the former topic holds up the record of the new one that has the same
offset. The registration tells the two apart, and keeps the group from starting until this is done. It is therefore
written last: whatever a crash leaves behind, the group stays stopped, and the next run does the rest. Before it,

1. pending records become dead letters, if they are wanted, and all locks get their tombstones;
2. the retry group's offsets go to the ends: a retry record of an old id would be taken for one of a new id;
3. source offsets that kafetrain committed go to the new topic's beginning, without our metadata. They are of the
   former topic; kept, they would skip records, and the tombstones just written would count for the new ids too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import TracebackType

from loguru import logger

from kafetrain.client.ports import Client, Committed, OutgoingRecord, ProducerPort, TopicDescription
from kafetrain.clock import Clock, SystemClock
from kafetrain.core.control import Audit
from kafetrain.core.entry import Registration, encode_registration, registration_key
from kafetrain.errors import ConfigurationError
from kafetrain.operations.lock_removal import NO_LOCKS, LockCount, count_locks, refuse_members, tombstones, write_all
from kafetrain.operations.pending_records import PendingRecords
from kafetrain.operations.redirect_view import RedirectView
from kafetrain.record import TopicPartition
from kafetrain.settings import Settings
from kafetrain.topics import AuxiliaryTopics
from kafetrain.tracker.state import METADATA_PREFIX

__all__ = ["FormerSelf", "ResetDone", "TopicReset"]


@dataclass(frozen=True, slots=True)
class FormerSelf:
    """What the redirect topic still holds of a topic that is no more. No `partitions`: nothing."""

    topic_id: str
    """The present topic's."""
    former_ids: tuple[str, ...] = ()
    partitions: tuple[int, ...] = ()
    """Of the redirect topic: those with a registration for another topic id."""
    locks: LockCount = NO_LOCKS


@dataclass(frozen=True, slots=True)
class ResetDone:
    """What a reset has done."""

    former: FormerSelf
    dead_lettered: int = 0
    dropped: int = 0
    """Pending ids that ended without a dead letter: unwanted, or their record is not in the retry topic."""
    rewound: tuple[int, ...] = ()
    """Source partitions whose committed offset was of the former topic."""


class TopicReset:
    """Enter it to connect. One thread."""

    def __init__(self, client: Client, settings: Settings, topic: str, *, clock: Clock | None = None) -> None:
        self._client, self._settings, self._clock = client, settings, clock or SystemClock()
        self._names = AuxiliaryTopics.of(settings, topic)
        self._described: Mapping[str, TopicDescription] = {}

    def __enter__(self) -> TopicReset:
        self._admin = self._client.admin()
        try:
            self._reader = self._client.reader()
        except BaseException:
            self._admin.close()
            raise
        names = self._names
        self._view = RedirectView(self._reader, self._settings, names.source, names.redirect, clock=self._clock)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._view.close()
        self._admin.close()

    def look(self) -> FormerSelf:
        """What a reset would end, as of now. Changes nothing.

        Raises `ConfigurationError` where the topic does not exist, or the cluster does not tell its id, and what
        reading the redirect topic raises.
        """
        names = self._names
        self._described = self._admin.describe_topics([names.source, *names.auxiliary])
        present = self._described.get(names.source)
        if present is None:
            raise ConfigurationError(
                f"{names.source} does not exist, or this user may not describe it. Create it first; where it is gone "
                f"for good: kafetrain topics forget {self._settings.group_id} --topic {names.source}"
            )
        if not present.topic_id:
            raise ConfigurationError(
                f"the cluster does not tell the id of {names.source} (Kafka does from 2.8 on), so nobody knows "
                f"whether it was created again. If it was, stop the group and delete {', '.join(names.auxiliary)}"
            )
        if names.redirect not in self._described:
            return FormerSelf(present.topic_id)
        self._view.refresh(self._described[names.redirect].partitions)
        former = {
            place: registration.topic_id
            for place, registration in self._view.registrations().items()
            if registration.topic_id and registration.topic_id != present.topic_id
        }
        return FormerSelf(
            present.topic_id,
            former_ids=tuple(sorted(set(former.values()))),
            partitions=tuple(sorted(place.partition for place in former)),
            locks=sum((count_locks(self._view.tables[place]) for place in former), NO_LOCKS),
        )

    def check_at_rest(self) -> None:
        """Raise `KafetrainError` where the group has members."""
        refuse_members(self._admin, self._settings, f"resetting {self._names.source}")

    def run(self, audit: Audit, *, dead_letter: bool) -> ResetDone:
        """End every lock of the former topic; `dead_letter`: what is pending goes to the dead-letter topic first.

        Durable on return. May be run again, after a failure too. Other groups' locks and records are not touched.
        Raises what `look` does, `KafetrainError` where the group has members, `ConfigurationError` where the
        dead-letter topic is missing, and `ClientError`.
        """
        former = self.look()
        if not former.partitions:
            return ResetDone(former)
        self.check_at_rest()
        producer = self._client.producer()
        try:
            moved = self._move(producer, former, audit) if dead_letter and former.locks.pending else 0
            for number in former.partitions:
                place = TopicPartition(self._names.redirect, number)
                ends = tombstones(place, self._view.tables[place], self._settings.group_id, self._names.source, audit)
                write_all(producer, ends, "tombstone")
            self._skip_retry_records(former.partitions)
            rewound = self._rewind(former.partitions)
            write_all(producer, [self._registration(number, former) for number in former.partitions], "registration")
        finally:
            producer.close(self._settings.shutdown_timeout)
        done = ResetDone(former, moved, former.locks.pending - moved, rewound)
        logger.bind(topic=self._names.source, group=self._settings.group_id, by=audit.by, reason=audit.why).warning(
            "reset by {}: pending records dead-lettered {}, dropped {}; dead ones forgotten {}",
            audit.by,
            done.dead_lettered,
            done.dropped,
            former.locks.dead,
        )
        return done

    def _move(self, producer: ProducerPort, former: FormerSelf, audit: Audit) -> int:
        names, described = self._names, self._described
        if names.dlq not in described:
            raise ConfigurationError(
                f"{names.dlq} does not exist, so nothing can be moved there. Create it with: kafetrain topics create "
                f"{names.source}"
            )
        if names.retry not in described:
            return 0
        reader = self._client.reader()
        try:
            moved = PendingRecords(
                reader,
                producer,
                self._settings,
                names,
                self._view.tables,
                self._clock,
                dlq_partitions=min(described[name].partitions for name in names.auxiliary),
            ).move([p for p in former.partitions if p < described[names.retry].partitions], audit)
        finally:
            reader.close()
        self._view.refresh()  # their tombstones
        return moved

    def _skip_retry_records(self, partitions: Collection[int]) -> None:
        count = self._described[self._names.retry].partitions if self._names.retry in self._described else 0
        places = [TopicPartition(self._names.retry, number) for number in partitions if number < count]
        ends = self._admin.end_offsets(places)
        self._admin.set_committed(self._settings.retry_group_id, {place: Committed(end) for place, end in ends.items()})

    def _rewind(self, partitions: Collection[int]) -> tuple[int, ...]:
        described, source = self._described, self._names.source
        width = min(described[name].partitions for name in self._names.auxiliary if name in described)
        places = [
            TopicPartition(source, number)
            for start in partitions
            for number in range(start, described[source].partitions, width)
        ]
        stale = [
            place
            for place, committed in self._admin.committed(self._settings.group_id, places).items()
            if committed.metadata.startswith(METADATA_PREFIX)  # else an operator's, who chose where to start
        ]
        if stale:
            starts = self._reader.beginning_offsets(stale)
            self._admin.set_committed(self._settings.group_id, {place: Committed(starts[place]) for place in stale})
        return tuple(sorted(place.partition for place in stale))

    def _registration(self, number: int, former: FormerSelf) -> OutgoingRecord:
        fresh = Registration(self._names.source, former.topic_id, self._clock.now_ms())
        key = registration_key(self._settings.group_id)
        return OutgoingRecord(self._names.redirect, number, key, encode_registration(fresh))
