"""All locks of a group on a topic, read from the redirect topic by position: once, or kept up to date.

It only looks: it joins no group and creates nothing, and shows every partition, whoever works on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kafetrain.client.ports import Client, TopicDescription
from kafetrain.clock import Clock
from kafetrain.core.entry import Entry
from kafetrain.core.lock_table import LockTable
from kafetrain.core.lock_view import locks_of
from kafetrain.errors import ConfigurationError
from kafetrain.operations.redirect_view import RedirectView
from kafetrain.outcome import Lock
from kafetrain.record import MessageId, TopicPartition
from kafetrain.settings import Settings
from kafetrain.topics import AuxiliaryTopics

__all__ = ["Head", "LockView", "describe", "read_locks"]


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


class LockView(RedirectView):
    """The locks as of the last `refresh` or `poll`. Building it reads the redirect topic to its end. One thread.

    Raises what `read_locks` raises. `close` it, or use `with`.
    """

    def __init__(
        self, client: Client, settings: Settings, topic: str, partitions: int, *, clock: Clock | None = None
    ) -> None:
        redirect = AuxiliaryTopics.of(settings, topic).redirect
        super().__init__(client.reader(), settings, topic, redirect, clock=clock)
        self._changed: dict[MessageId, int] = {}
        try:
            self.refresh(partitions)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> LockView:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def locks(self) -> list[Lock]:
        """By partition and due time."""
        group, topic = self._settings.group_id, self._topic
        found = [lock for table in self.tables.values() for lock in locks_of(table, group, topic)]
        return sorted(found, key=lambda lock: (lock.partition, lock.due))

    def heads(self) -> Iterator[Head]:
        """One of each key in retry or dead, by partition and offset."""
        group = self._settings.group_id
        for table in self.tables.values():
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

    def noted(self, id: MessageId, log_offset: int) -> None:
        if id in self._changed:
            self._changed[id] = max(self._changed[id], log_offset)

    def _place(self, id: MessageId) -> TopicPartition:
        return TopicPartition(self._redirect, id.partition % len(self.tables))

    def _table(self, id: MessageId) -> LockTable:
        return self.tables[self._place(id)]
