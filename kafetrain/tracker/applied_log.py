"""What was read of the redirect topic, applied to the lock tables."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from loguru import logger

from kafetrain.core.entry import FORMAT, NewerFormat
from kafetrain.core.filling import fill, sources_by_name
from kafetrain.core.lock_table import LockTable
from kafetrain.core.redirect_log import Ended, NotAChange, Registered, read_change
from kafetrain.errors import NewerFormatError
from kafetrain.record import MessageId, Record, TopicPartition
from kafetrain.tracker.state import TrackerState

__all__ = ["AppliedLog"]


class AppliedLog:
    """Called with the state's mutex held."""

    def __init__(self, state: TrackerState, group: str) -> None:
        self._state, self._group = state, group

    def apply(self, place: TopicPartition, table: LockTable, records: Sequence[Record]) -> None:
        """Into the table that is being filled: the one that others see, or the one that is rebuilt."""
        topic = next((n for n, t in self._state.topics.items() if t.names.redirect == place.topic), None)
        one = partial(self._apply_one, place, table, topic)
        if topic is None or (table.rebuilt is None and place in self._state.listeners):
            for record in records:
                one(record)
        else:  # nobody is told of each change
            fill(sources_by_name(table.rebuilt or table, self._group, topic), records, one)

    def _apply_one(self, place: TopicPartition, table: LockTable, topic: str | None, record: Record) -> None:
        filled = table.rebuilt or table

        def is_news(id: MessageId) -> bool:
            """Is it of our group and topic, and not what we have written ourselves and know already?"""
            if id.group != self._group or id.topic != topic:
                return False
            return not filled.source(id.partition).knows(id.offset, record.offset)

        try:
            change = read_change(record, is_news)
        except NotAChange as why:
            self._malformed(record, str(why))
            return
        except NewerFormat as error:
            table.refused = NewerFormatError(place.topic, place.partition, record.offset, error.version, FORMAT)
            for claim in self._state.all_claims():
                if claim.redirect == place:
                    claim.ready, claim.error = False, table.refused
            return
        if change is None:
            return
        hidden = table.rebuilt
        if isinstance(change, Registered):
            if hidden is None:
                self._state.register(place, change.group, change.registration)
            elif change.registration is None:
                hidden.registrations.pop(change.group, None)
            else:
                hidden.registrations[change.group] = change.registration
            return
        partition, offset = change.id.partition, change.id.offset
        if isinstance(change, Ended):
            if hidden is None:
                self._state.end(place, partition, offset, change.key, record.offset, ours=False)
            else:
                hidden.source(partition).end(offset, change.key, record.offset)
            return
        if change.unreadable is not None:
            self._malformed(record, f"its value is no entry ({change.unreadable}); taken as pending")
        if hidden is None:
            self._state.put(place, partition, offset, change.entry)
        else:
            hidden.source(partition).put(offset, change.entry)

    def _malformed(self, record: Record, why: str) -> None:
        self._state.malformed[TopicPartition(record.topic, record.partition)] += 1
        logger.bind(topic=record.topic, partition=record.partition, offset=record.offset).warning(
            "a record that is not ours or is damaged: {}", why
        )
