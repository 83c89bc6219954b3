"""What the redirect topic says of a group on a topic, read from outside: without a group, and incrementally.

A command looks at all partitions, whoever works on them. `refresh` reads on from where it stands to the ends of that
moment, so that looking again costs what is new.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta

from loguru import logger

from kafetrain.client.ports import ConsumerPort, OffsetOutOfRangeError
from kafetrain.clock import Clock, SystemClock
from kafetrain.core.entry import FORMAT, NewerFormat, Registration
from kafetrain.core.lock_table import LockTable
from kafetrain.core.redirect_log import Ended, NotAChange, Registered, read_change
from kafetrain.errors import NewerFormatError, RestoreTimeoutError
from kafetrain.record import MessageId, Record, TopicPartition
from kafetrain.settings import Settings

__all__ = ["RedirectView", "read_some", "read_to_end"]

_POLL = timedelta(milliseconds=100)
_NEVER_AGAIN = 2**63
"""A committed offset above all others: no ended id is worth remembering."""


def read_to_end(
    reader: ConsumerPort,
    places: Collection[TopicPartition],
    take: Callable[[TopicPartition, Sequence[Record]], None],
    *,
    patience: timedelta,
    clock: Clock,
    restarted: Callable[[TopicPartition], None] = lambda place: None,
) -> None:
    """Read the partitions that `reader` is assigned on to their present ends, by position.

    `restarted`: the beginning was purged past us, and the partition is read again from where it is now. Raises
    `RestoreTimeoutError` where nothing moves for `patience`.
    """
    ends = reader.end_offsets(places)
    since, seen = clock.monotonic(), -1
    while behind := [place for place, end in ends.items() if (reader.position(place) or 0) < end]:
        read_some(reader, take, restarted)
        so_far = sum(reader.position(place) or 0 for place in places)
        if so_far != seen:
            since, seen = clock.monotonic(), so_far
        elif clock.monotonic() - since >= patience.total_seconds():
            place = behind[0]
            raise RestoreTimeoutError(*place, reader.position(place), ends[place])


def read_some(
    reader: ConsumerPort,
    take: Callable[[TopicPartition, Sequence[Record]], None],
    restarted: Callable[[TopicPartition], None] = lambda place: None,
    timeout: timedelta = _POLL,
) -> None:
    """One poll of `read_to_end`: what arrives, waited for no longer than `timeout`."""
    try:
        batches = reader.poll(timeout)
    except OffsetOutOfRangeError as error:
        for place, start in reader.beginning_offsets(error.partitions).items():
            restarted(place)
            reader.seek(place, start)
        return
    for place, records in batches.items():
        take(place, records)


class RedirectView:
    """The lock tables of one group on one topic, as of the last `refresh`. One thread; owns its reader."""

    def __init__(
        self, reader: ConsumerPort, settings: Settings, topic: str, redirect: str, *, clock: Clock | None = None
    ) -> None:
        self._reader, self._settings, self._clock = reader, settings, clock or SystemClock()
        self._topic, self._redirect = topic, redirect
        self.tables: dict[TopicPartition, LockTable] = {}
        """They know what is open and who is registered, and nothing of what has ended."""

    def refresh(self, partitions: int = 0) -> None:
        """Read to the ends of now; `partitions`: how many the redirect topic has, where that may have grown.

        Raises `RestoreTimeoutError`, `NewerFormatError` and the client's `ClientError`; it may be called again after
        each.
        """
        if partitions > len(self.tables):
            for number in range(len(self.tables), partitions):
                self.tables[TopicPartition(self._redirect, number)] = LockTable()
            self._reader.assign(dict.fromkeys(self.tables))
        if self.tables:
            patience = self._settings.state_restore_timeout
            read_to_end(
                self._reader,
                self.tables.keys(),
                self._apply,
                patience=patience,
                clock=self._clock,
                restarted=self._restarted,
            )

    def poll(self, timeout: timedelta = _POLL) -> None:
        """Apply what arrives; wait for that no longer than `timeout`."""
        read_some(self._reader, self._apply, self._restarted, timeout)

    def registrations(self) -> Mapping[TopicPartition, Registration]:
        """Where the group is registered."""
        group = self._settings.group_id
        return {
            place: table.registrations[group] for place, table in self.tables.items() if group in table.registrations
        }

    def close(self) -> None:
        self._reader.close()

    def noted(self, id: MessageId, log_offset: int) -> None:
        """An id of ours was changed by the record at that offset. For subclasses."""

    def _restarted(self, place: TopicPartition) -> None:
        self.tables[place].adopt(LockTable())

    def _apply(self, place: TopicPartition, records: Sequence[Record]) -> None:
        table = self.tables[place]
        for record in records:
            try:
                change = read_change(record, self._is_ours)
            except NotAChange as error:
                logger.warning("{}[{}]@{} is not ours or is damaged: {}", *place, record.offset, error)
                continue
            except NewerFormat as error:
                raise NewerFormatError(*place, record.offset, error.version, FORMAT) from error
            if change is None:
                continue
            if isinstance(change, Registered):
                if change.registration is None:
                    table.registrations.pop(change.group, None)
                else:
                    table.registrations[change.group] = change.registration
                continue
            locks = table.source(change.id.partition)
            locks.committed = _NEVER_AGAIN
            if isinstance(change, Ended):
                locks.end(change.id.offset, change.key, record.offset)
            else:
                locks.put(change.id.offset, change.entry)
            self.noted(change.id, record.offset)

    def _is_ours(self, id: MessageId) -> bool:
        return id.group == self._settings.group_id and id.topic == self._topic
