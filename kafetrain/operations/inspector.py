"""Looks at a group on a topic from outside, again and again: joins no group, writes nothing, creates nothing."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from kafetrain.client.ports import Client, TopicDescription
from kafetrain.clock import Clock, SystemClock
from kafetrain.core.lock_view import utc
from kafetrain.deadletter.lock_view import LockView
from kafetrain.errors import ConfigurationError
from kafetrain.operations.figures import Figures, Offsets, figures_of
from kafetrain.outcome import Lock
from kafetrain.record import TopicPartition
from kafetrain.settings import Settings
from kafetrain.topics import AuxiliaryTopics

__all__ = ["Inspector"]


class Inspector:
    """Enter it to connect. One thread."""

    def __init__(self, client: Client, settings: Settings, topic: str, *, clock: Clock | None = None) -> None:
        self._client, self._settings, self._clock = client, settings, clock or SystemClock()
        self._names = AuxiliaryTopics.of(settings, topic)
        self._view: LockView | None = None
        self._seen = 0

    def __enter__(self) -> Inspector:
        self._admin = self._client.admin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._view is not None:
            self._view.close()
        self._admin.close()

    def look(self) -> Figures:
        """The group as of now. After the first look, of the redirect topic only what is new is read.

        Raises `ConfigurationError` where the topic does not exist, and `ClientError`, after which it may be called
        again; what reading the redirect topic raises.
        """
        names, settings = self._names, self._settings
        described = self._admin.describe_topics([names.source, names.retry, names.redirect])
        if names.source not in described:
            raise ConfigurationError(
                f"{names.source} does not exist: the cluster at {','.join(settings.bootstrap_servers)} does not have "
                f"it, or this user may not describe it"
            )
        # Offsets before locks: what the locks show is then not older than what is committed.
        return figures_of(
            names.source,
            settings.group_id,
            members=self._admin.group_members(settings.group_id),
            retry_members=self._admin.group_members(settings.retry_group_id),
            source=self._offsets(described, names.source, settings.group_id),
            retry=self._offsets(described, names.retry, settings.retry_group_id),
            locks=self._locks(described.get(names.redirect)),
            at=utc(self._clock.now_ms()),
        )

    def _offsets(self, described: Mapping[str, TopicDescription], topic: str, group: str) -> dict[int, Offsets]:
        if topic not in described:
            return {}
        places = [TopicPartition(topic, number) for number in range(described[topic].partitions)]
        committed = self._admin.committed(group, places)
        ends = self._admin.end_offsets(places)
        return {
            place.partition: Offsets(end, committed[place].next_offset if place in committed else None)
            for place, end in ends.items()
        }

    def _locks(self, redirect: TopicDescription | None) -> list[Lock]:
        if redirect is None:
            return []  # nothing has ever failed
        if self._view is not None and self._seen != redirect.partitions:  # the topic has grown
            self._view.close()
            self._view = None
        if self._view is None:
            self._view = LockView(
                self._client, self._settings, self._names.source, redirect.partitions, clock=self._clock
            )
            self._seen = redirect.partitions
        else:
            self._view.refresh()
        return self._view.locks()
