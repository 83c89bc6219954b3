"""One record of a dead-letter topic, as its headers tell it; and which of them somebody wants to see."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from kafetrain.core.dead_letter import decode_dead_letter
from kafetrain.core.headers import DeadLetterState, Malformed
from kafetrain.core.lock_view import utc
from kafetrain.record import Headers, MessageId, Record

__all__ = ["MARKS", "UNKNOWN", "DeadLetter", "Filter", "read_letter"]

UNKNOWN = "unknown"
"""The state of a record that kafetrain did not write."""

MARKS = frozenset({DeadLetterState.TRANSFORMED, DeadLetterState.REPLAYED})
"""States of copies and marks that commands leave: no records that ended."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that ended without success, where it lies, and why. Times are ms since the epoch."""

    topic: str
    """The dead-letter topic."""
    partition: int
    offset: int
    id: MessageId | None
    """Of the source record; None: kafetrain did not write this."""
    key: bytes | None
    value: bytes | None
    headers: Headers
    """The record's own."""
    state: str
    at_ms: int
    """When it was dead-lettered."""
    source_timestamp_ms: int
    """The source record's own."""
    topic_id: str | None = None
    """The source topic's; one that was created again since has another. None: it was not known."""
    reason: str | None = None
    error_type: str | None = None
    attempts: int | None = None
    first_failure_ms: int | None = None
    command: str | None = None
    """Of a copy or a mark: the command that left it."""
    transform: str | None = None
    replayed: tuple[int, int] | None = None
    """Of a mark: the place of the dead letter that it is about."""
    raw_headers: Headers = ()
    """All of them, as they stand in the topic."""

    @property
    def place(self) -> tuple[int, int]:
        """Partition and offset in the dead-letter topic."""
        return (self.partition, self.offset)

    @property
    def at(self) -> datetime:
        return utc(self.at_ms)

    @property
    def first_failure(self) -> datetime | None:
        return None if self.first_failure_ms is None else utc(self.first_failure_ms)

    @property
    def error(self) -> str:
        """Type and text of what ended it, as one text; empty where nothing did."""
        return ": ".join(part for part in (self.error_type, self.reason) if part)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which dead letters are meant; a field that is None leaves none out. Times are ms since the epoch."""

    key: bytes | None = None
    states: Collection[str] | None = None
    """None: all but those of marks and copies."""
    marks: bool = False
    """With `states` None: marks and copies too."""
    reason: str | None = None
    """A part of the error's type and text, in whatever case."""
    since_ms: int | None = None
    until_ms: int | None = None

    def takes(self, letter: DeadLetter) -> bool:
        return (
            (self.key is None or letter.key == self.key)
            and (letter.state in self.states if self.states is not None else self.marks or letter.state not in MARKS)
            and (self.reason is None or self.reason.lower() in letter.error.lower())
            and (self.since_ms is None or letter.at_ms >= self.since_ms)
            and (self.until_ms is None or letter.at_ms < self.until_ms)
        )


def read_letter(record: Record) -> DeadLetter:
    """Never fails: a record that nobody of ours wrote is `unknown`."""
    place, raw = (record.topic, record.partition, record.offset), tuple(record.headers or ())
    try:
        info = decode_dead_letter(record)
    except Malformed:
        at_ms = max(0, record.timestamp)
        return DeadLetter(*place, None, record.key, record.value, raw, UNKNOWN, at_ms, at_ms, raw_headers=raw)
    return DeadLetter(
        *place,
        id=info.id,
        key=record.key,
        value=None if info.null_value and not record.value else record.value,
        headers=info.user_headers,
        state=info.state,
        at_ms=max(0, info.at_ms),
        source_timestamp_ms=info.source_timestamp_ms,
        topic_id=info.topic_id,
        reason=info.reason,
        error_type=info.error_type,
        attempts=info.attempts,
        first_failure_ms=info.first_failure_ms,
        command=info.command,
        transform=info.transform,
        replayed=info.replayed,
        raw_headers=raw,
    )
