"""Remove a group that is gone: its locks on the given topics, and its registration.

As long as it is registered, nothing is purged for the groups that share the topics with it. The registration goes
last, so that what a crash leaves behind is still found to be the group's.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType

from loguru import logger

from kafetrain.client.ports import Client, Committed, OutgoingRecord, TopicDescription
from kafetrain.clock import Clock, SystemClock
from kafetrain.core.control import Audit, audit_headers
from kafetrain.core.entry import registration_key
from kafetrain.errors import ConfigurationError
from kafetrain.operations.lock_removal import NO_LOCKS, LockCount, count_locks, refuse_members, tombstones, write_all
from kafetrain.operations.redirect_view import RedirectView
from kafetrain.record import TopicPartition
from kafetrain.settings import Settings
from kafetrain.topics import AuxiliaryTopics

__all__ = ["GroupRemoval", "Traces"]


@dataclass(frozen=True, slots=True)
class Traces:
    """What a group has left in the redirect topic of a source topic."""

    topic: str
    partitions: tuple[int, ...] = ()
    """Of the redirect topic: those with a registration or a lock of the group."""
    locks: LockCount = NO_LOCKS


class GroupRemoval:
    """Of `settings.group_id`. Enter it to connect. One thread."""

    def __init__(
        self, client: Client, settings: Settings, topics: Sequence[str], *, clock: Clock | None = None
    ) -> None:
        self._client, self._settings, self._clock = client, settings, clock or SystemClock()
        self._names = [AuxiliaryTopics.of(settings, topic) for topic in dict.fromkeys(topics)]
        self._views: dict[str, RedirectView] = {}
        self._described: dict[str, TopicDescription] = {}

    def __enter__(self) -> GroupRemoval:
        with ExitStack() as opened:
            self._admin = self._client.admin()
            opened.callback(self._admin.close)
            for names in self._names:
                view = RedirectView(
                    self._client.reader(), self._settings, names.source, names.redirect, clock=self._clock
                )
                opened.callback(view.close)
                self._views[names.source] = view
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def look(self) -> list[Traces]:
        """What a removal would end, as of now, topic by topic. Changes nothing.

        Raises `ConfigurationError` where neither a topic nor its redirect topic exists, and what reading the redirect
        topics raises.
        """
        asked = [name for names in self._names for name in (names.source, names.retry, names.redirect)]
        self._described = dict(self._admin.describe_topics(asked))
        for names in self._names:
            if names.source not in self._described and names.redirect not in self._described:
                raise ConfigurationError(
                    f"{names.source} does not exist, and neither does {names.redirect}, or this user may not describe "
                    f"them. Check the name, and the setting topic_format"
                )
        return [self._look(names) for names in self._names]

    def _look(self, names: AuxiliaryTopics) -> Traces:
        if names.redirect not in self._described:
            return Traces(names.source)
        view = self._views[names.source]
        view.refresh(self._described[names.redirect].partitions)
        counts = {place: count_locks(table) for place, table in view.tables.items()}
        registered = view.registrations()
        found = [place for place in sorted(counts) if place in registered or counts[place] != NO_LOCKS]
        return Traces(names.source, tuple(place.partition for place in found), sum(counts.values(), NO_LOCKS))

    def check_at_rest(self) -> None:
        """Raise `KafetrainError` where the group has members."""
        refuse_members(self._admin, self._settings, f"forgetting {self._settings.group_id}")

    def run(self, audit: Audit) -> list[Traces]:
        """Returns what was removed: traces without partitions where there was nothing. Durable on return; may be run
        again, after a failure too.

        Raises what `look` does, `KafetrainError` where the group has members, and `ClientError`.
        """
        traces = self.look()
        if not any(found.partitions for found in traces):
            return traces
        self.check_at_rest()
        producer = self._client.producer()
        try:
            for names, found in zip(self._names, traces, strict=True):
                places = [TopicPartition(names.redirect, number) for number in found.partitions]
                for place in places:
                    table = self._views[names.source].tables[place]
                    ends = tombstones(place, table, self._settings.group_id, names.source, audit)
                    write_all(producer, ends, "tombstone")
                self._skip_retry_records(names, found)
                write_all(producer, [self._unregistration(place, audit) for place in places], "tombstone")
        finally:
            producer.close(self._settings.shutdown_timeout)
        for found in traces:
            logger.bind(topic=found.topic, group=self._settings.group_id, by=audit.by, reason=audit.why).warning(
                "group {} forgotten on {} by {}: {} pending and {} dead locks are gone",
                self._settings.group_id,
                found.topic,
                audit.by,
                found.locks.pending,
                found.locks.dead,
            )
        return traces

    def _skip_retry_records(self, names: AuxiliaryTopics, found: Traces) -> None:
        """Should the group come back, it finds nothing to wait for, even where others have purged since."""
        retry = self._described.get(names.retry)
        if retry is None:
            return
        places = [TopicPartition(names.retry, number) for number in found.partitions if number < retry.partitions]
        known = self._admin.committed(self._settings.retry_group_id, places)
        ends = self._admin.end_offsets(known.keys())
        self._admin.set_committed(self._settings.retry_group_id, {place: Committed(end) for place, end in ends.items()})

    def _unregistration(self, place: TopicPartition, audit: Audit) -> OutgoingRecord:
        key = registration_key(self._settings.group_id)
        return OutgoingRecord(place.topic, place.partition, key, None, audit_headers(audit))
