"""All locks of a group on a topic, read from the redirect topic from its beginning to its end, by position."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from loguru import logger

from kafetrain.client.ports import Client, ConsumerPort, OffsetOutOfRangeError
from kafetrain.clock import Clock, SystemClock
from kafetrain.core.entry import FORMAT, NewerFormat
from kafetrain.core.lock_table import LockTable
from kafetrain.core.lock_view import locks_of
from kafetrain.core.redirect_log import Ended, NotAChange, Opened, read_change
from kafetrain.errors import ConfigurationError, NewerFormatError, RestoreTimeoutError
from kafetrain.outcome import Lock
from kafetrain.record import MessageId, Record, TopicPartition
from kafetrain.settings import Settings
from kafetrain.topics import AuxiliaryTopics

__all__ = ["read_locks"]

_POLL = timedelta(milliseconds=100)
_NEVER_AGAIN = 2**63
"""A committed offset above all others: no ended id is worth remembering."""


def read_locks(client: Client, settings: Settings, topic: str, *, clock: Clock | None = None) -> list[Lock]:
    """By partition and due time. No topic is created and no group joined.

    Raises `ConfigurationError` where neither the topic nor its redirect topic exists, `RestoreTimeoutError` where
    reading makes no progress for `state_restore_timeout`, `NewerFormatError`, `ClientError`.
    """
    names = AuxiliaryTopics.of(settings, topic)
    admin = client.admin()
    try:
        described = admin.describe_topics([names.source, names.redirect])
    finally:
        admin.close()
    if names.redirect not in described:
        if names.source in described:
            return []  # nothing of it has ever failed
        servers = ",".join(settings.bootstrap_servers)
        raise ConfigurationError(
            f"{topic} does not exist, and neither does {names.redirect}: the cluster at {servers} does not have them, "
            f"or this user may not describe them. Check the name and bootstrap_servers"
        )
    tables = {TopicPartition(names.redirect, p): LockTable() for p in range(described[names.redirect].partitions)}
    reader = client.reader()
    try:
        _Reading(reader, tables, settings, topic, clock or SystemClock()).run()
    finally:
        reader.close()
    found = [lock for table in tables.values() for lock in locks_of(table, settings.group_id, topic)]
    return sorted(found, key=lambda lock: (lock.partition, lock.due))


class _Reading:
    def __init__(
        self,
        reader: ConsumerPort,
        tables: Mapping[TopicPartition, LockTable],
        settings: Settings,
        topic: str,
        clock: Clock,
    ) -> None:
        self._reader, self._tables, self._settings = reader, tables, settings
        self._topic, self._clock = topic, clock

    def run(self) -> None:
        limit_s = self._settings.state_restore_timeout.total_seconds()
        self._reader.assign(dict.fromkeys(self._tables))
        ends = self._reader.end_offsets(self._tables.keys())
        since, seen = self._clock.monotonic(), -1
        while behind := [p for p, end in ends.items() if (self._reader.position(p) or 0) < end]:
            self._read()
            so_far = sum(self._reader.position(place) or 0 for place in self._tables)
            if so_far != seen:
                since, seen = self._clock.monotonic(), so_far
            elif self._clock.monotonic() - since >= limit_s:
                place = behind[0]
                raise RestoreTimeoutError(*place, self._reader.position(place), ends[place])

    def _read(self) -> None:
        try:
            batches = self._reader.poll(_POLL)
        except OffsetOutOfRangeError as error:
            # The beginning was purged while we were reading below it: start again from where it is now.
            for place, start in self._reader.beginning_offsets(error.partitions).items():
                self._tables[place].adopt(LockTable())
                self._reader.seek(place, start)
            return
        for place, records in batches.items():
            for record in records:
                self._apply(place, record)

    def _apply(self, place: TopicPartition, record: Record) -> None:
        try:
            change = read_change(record, self._is_ours)
        except NotAChange as error:
            logger.warning("{}[{}]@{} is not ours or is damaged: {}", *place, record.offset, error)
            return
        except NewerFormat as error:
            raise NewerFormatError(*place, record.offset, error.version, FORMAT) from error
        if not isinstance(change, Opened | Ended):
            return
        locks = self._tables[place].source(change.id.partition)
        locks.committed = _NEVER_AGAIN
        if isinstance(change, Ended):
            locks.end(change.id.offset, change.key, record.offset)
        else:
            locks.put(change.id.offset, change.entry)

    def _is_ours(self, id: MessageId) -> bool:
        return id.group == self._settings.group_id and id.topic == self._topic
