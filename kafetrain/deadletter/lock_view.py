"""All locks of a group on a topic, read from the redirect topic by position: once, or kept up to date.

It only looks: it joins no group and creates nothing, and shows every partition, whoever works on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from loguru import logger

from kafetrain.client.ports import Client, ConsumerPort, OffsetOutOfRangeError, TopicDescription
from kafetrain.clock import Clock, SystemClock
from kafetrain.core.entry import FORMAT, Entry, NewerFormat
from kafetrain.core.lock_table import LockTable
from kafetrain.core.lock_view import locks_of
from kafetrain.core.redirect_log import Ended, NotAChange, Opened, read_change
from kafetrain.errors import ConfigurationError, NewerFormatError, RestoreTimeoutError
from kafetrain.outcome import Lock
from kafetrain.record import MessageId, Record, TopicPartition
from kafetrain.settings import Settings
from kafetrain.topics import AuxiliaryTopics

__all__ = ["Head", "LockView", "describe", "read_locks"]

_POLL = timedelta(milliseconds=100)
_NEVER_AGAIN = 2**63
"""A committed offset above all others: no ended id is worth remembering."""


@dataclass(frozen=True, slots=True)
class Head:
    """The first record of a key in retry: the one that died, or that runs next."""

    id: MessageId
    entry: Entry
    waiting: int
    """How many are behind it."""


def read_locks(client: Client, settings: Settings, topic: str, *, clock: Clock | None = None) -> list[Lock]:
    """By partition and due time. No topic is created and no group joined.

    Raises `ConfigurationError` where neither the topic nor its redirect topic exists, `RestoreTimeoutError` where
    reading makes no progress for `state_restore_timeout`, `NewerFormatError`, `ClientError`.
    """
    redirect = AuxiliaryTopics.of(settings, topic).redirect
    described = describe(client, settings, topic)
    if redirect not in described:
        return []  # nothing of it has ever failed
    with LockView(client, settings, topic, described[redirect].partitions, clock=clock) as view:
        return view.locks()


def describe(client: Client, settings: Settings, topic: str) -> dict[str, TopicDescription]:
    """Those of the source topic and its auxiliary topics that exist.

    Raises `ConfigurationError` where neither the topic nor its redirect topic does: the name is wrong.
    """
    names = AuxiliaryTopics.of(settings, topic)
    admin = client.admin()
    try:
        described = dict(admin.describe_topics([names.source, *names.auxiliary]))
    finally:
        admin.close()
    if names.redirect not in described and names.source not in described:
        servers = ",".join(settings.bootstrap_servers)
        raise ConfigurationError(
            f"{topic} does not exist, and neither does {names.redirect}: the cluster at {servers} does not have them, "
            f"or this user may not describe them. Check the name and bootstrap_servers"
        )
    return described


class LockView:
    """The locks as of the last `refresh` or `poll`. Building it reads the redirect topic to its end. One thread.

    Raises what `read_locks` raises. `close` it, or use `with`.
    """

    def __init__(
        self, client: Client, settings: Settings, topic: str, partitions: int, *, clock: Clock | None = None
    ) -> None:
        self._settings, self._topic, self._clock = settings, topic, clock or SystemClock()
        redirect = AuxiliaryTopics.of(settings, topic).redirect
        self._tables = {TopicPartition(redirect, partition): LockTable() for partition in range(partitions)}
        self._places = list(self._tables)
        self._changed: dict[MessageId, int] = {}
        self._reader: ConsumerPort = client.reader()
        try:
            self._reader.assign(dict.fromkeys(self._tables))
            self.refresh()
        except BaseException:
            self._reader.close()
            raise

    def __enter__(self) -> LockView:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._reader.close()

    def refresh(self) -> None:
        """Read what is new, up to the present end."""
        limit_s = self._settings.state_restore_timeout.total_seconds()
        ends = self._reader.end_offsets(self._tables.keys())
        since, seen = self._clock.monotonic(), -1
        while behind := [place for place, end in ends.items() if (self._reader.position(place) or 0) < end]:
            self.poll()
            so_far = sum(self._reader.position(place) or 0 for place in self._tables)
            if so_far != seen:
                since, seen = self._clock.monotonic(), so_far
            elif self._clock.monotonic() - since >= limit_s:
                place = behind[0]
                raise RestoreTimeoutError(*place, self._reader.position(place), ends[place])

    def poll(self, timeout: timedelta = _POLL) -> None:
        """Apply what arrives; wait for that no longer than `timeout`."""
        try:
            batches = self._reader.poll(timeout)
        except OffsetOutOfRangeError as error:
            # The beginning was purged while we were reading below it: start again from where it is now.
            for place, start in self._reader.beginning_offsets(error.partitions).items():
                self._tables[place].adopt(LockTable())
                self._reader.seek(place, start)
            return
        for place, records in batches.items():
            for record in records:
                self._apply(place, record)

    def locks(self) -> list[Lock]:
        """By partition and due time."""
        group, topic = self._settings.group_id, self._topic
        found = [lock for table in self._tables.values() for lock in locks_of(table, group, topic)]
        return sorted(found, key=lambda lock: (lock.partition, lock.due))

    def heads(self) -> Iterator[Head]:
        """One of each key in retry or dead, by partition and offset."""
        group = self._settings.group_id
        for table in self._tables.values():
            for partition, locks in sorted(table.sources.items()):
                chains = [chain.open for chain in locks.chains.values() if chain.open]
                for chain in sorted(chains, key=lambda chain: chain[0]):
                    id = MessageId(group, self._topic, partition, chain[0])
                    yield Head(id, locks.entries[id.offset], len(chain) - 1)

    def entry(self, id: MessageId) -> Entry | None:
        """None: the id has no lock."""
        return self._table(id).source(id.partition).entries.get(id.offset)

    def end_of(self, id: MessageId) -> int:
        """The redirect partition of the id is applied up to this offset."""
        return self._reader.position(self._place(id)) or 0

    def watch(self, ids: Iterable[MessageId]) -> None:
        """Note from now on where the log changes these."""
        self._changed.update(dict.fromkeys(ids, -1))

    def changed_at(self, id: MessageId) -> int:
        """Where the log last changed an id since it is watched; -1: it has not."""
        return self._changed.get(id, -1)

    def _place(self, id: MessageId) -> TopicPartition:
        return self._places[id.partition % len(self._places)]

    def _table(self, id: MessageId) -> LockTable:
        return self._tables[self._place(id)]

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
        if change.id in self._changed:
            self._changed[change.id] = max(self._changed[change.id], record.offset)

    def _is_ours(self, id: MessageId) -> bool:
        return id.group == self._settings.group_id and id.topic == self._topic
