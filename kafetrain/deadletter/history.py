"""A key's story, put together from the redirect, retry and dead-letter topics, as far as they still hold it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from kafetrain.client.ports import Client, TopicDescription
from kafetrain.core.control import Control
from kafetrain.core.entry import Entry, NewerFormat, State
from kafetrain.core.headers import Malformed, decode_retry
from kafetrain.core.lock_view import utc
from kafetrain.core.redirect_log import Ended, NotAChange, Opened, read_change
from kafetrain.deadletter.letter import DeadLetter, read_letter
from kafetrain.deadletter.topic_scan import Progress, scan_topic
from kafetrain.record import DlqHeader, MessageId, Record, RetryHeader, header
from kafetrain.settings import Settings
from kafetrain.topics import AuxiliaryTopics

__all__ = ["KeyEvent", "read_history"]


@dataclass(frozen=True, slots=True)
class KeyEvent:
    """One record of an auxiliary topic, as a line of a key's story."""

    at_ms: int
    """When it was written, by the topic's own clock."""
    kind: str
    """`lock`, `unlock`, `retry`, `control`, `dead-letter`, `copy` or `mark`."""
    id: MessageId
    topic: str
    partition: int
    offset: int
    text: str
    """What it says, for a person. No payload."""
    command: str | None = None
    """Of a control record, and of what was written because of one."""
    by: str | None = None
    why: str | None = None

    @property
    def at(self) -> datetime:
        return utc(self.at_ms)


def read_history(
    client: Client,
    settings: Settings,
    names: AuxiliaryTopics,
    described: Mapping[str, TopicDescription],
    key: bytes,
    progress: Progress | None,
) -> list[KeyEvent]:
    """Every event of a key of the group, in the order of time. One topic is read after the other."""
    tell = _Teller(settings.group_id, names.source, key)
    readers = {names.redirect: tell.redirect, names.retry: tell.retry, names.dlq: tell.dead_letter}
    events: list[KeyEvent] = []
    for topic, read in readers.items():
        if topic not in described:
            continue
        start = dict.fromkeys(range(described[topic].partitions))
        records = scan_topic(client, topic, start, patience=settings.state_restore_timeout, progress=progress)
        for record in records:
            events += read(record)
    return sorted(events, key=lambda event: event.at_ms)  # stable: what is written at once stays in the log's order


class _Teller:
    """Knows which ids are the key's."""

    def __init__(self, group: str, topic: str, key: bytes) -> None:
        self._group, self._topic, self._key = group, topic, key
        self._ids: set[MessageId] = set()

    def redirect(self, record: Record) -> Iterator[KeyEvent]:
        try:
            change = read_change(record, self._is_ours)
        except (NotAChange, NewerFormat):
            return
        if isinstance(change, Opened) and change.entry.key == self._key:
            self._ids.add(change.id)
            yield _event(record, "lock", change.id, _entry_text(change.entry))
        elif isinstance(change, Ended) and (change.key == self._key or change.id in self._ids):
            yield _event(record, "unlock", change.id, "ended")

    def retry(self, record: Record) -> Iterator[KeyEvent]:
        if record.key != self._key:
            return
        try:
            info = decode_retry(record)
        except Malformed:
            return
        if not self._is_ours(info.id):
            return
        if info.control is not None:
            yield _event(record, "control", info.id, _control_text(info.control))
        else:
            yield _event(record, "retry", info.id, f"in retry, attempt {info.attempt}")

    def dead_letter(self, record: Record) -> Iterator[KeyEvent]:
        letter = read_letter(record)
        if record.key == self._key and letter.id is not None and letter.id.group == self._group:
            kind = {"transformed": "copy", "replayed": "mark"}.get(letter.state, "dead-letter")
            yield _event(record, kind, letter.id, _letter_text(letter))

    def _is_ours(self, id: MessageId) -> bool:
        return id.group == self._group and id.topic == self._topic


def _event(record: Record, kind: str, id: MessageId, text: str) -> KeyEvent:
    """With who asked for it, where it was written because of a command."""
    command = header(record, RetryHeader.COMMAND) or header(record, DlqHeader.COMMAND)
    by, why = (header(record, name) if command else None for name in (RetryHeader.BY, RetryHeader.WHY))
    if by is not None:
        text += f", asked by {by}"
    return KeyEvent(record.timestamp, kind, id, record.topic, record.partition, record.offset, text, command, by, why)


def _control_text(control: Control) -> str:
    audit = control.audit
    text = control.action if audit.transform is None else f"{control.action} with {audit.transform}"
    return f"{text} ({audit.why})" if audit.why else text


def _entry_text(entry: Entry) -> str:
    error = ": ".join(part for part in (entry.error_type, entry.error) if part)
    if entry.state is State.DEAD:
        at = "" if entry.dead_at is None else f", dead letter {entry.dead_at[0]}:{entry.dead_at[1]}"
        return f"dead, attempt {entry.attempt}{at}"
    if not entry.attempt:
        return "pending, attempt 0"
    return f"pending, attempt {entry.attempt}, due {utc(entry.due_ms):%H:%M:%S}" + (f", {error}" if error else "")


def _letter_text(letter: DeadLetter) -> str:
    if letter.replayed is not None:
        return f"dead letter {letter.replayed[0]}:{letter.replayed[1]} was put into retry again"
    text = letter.state
    if letter.transform is not None:
        return f"{text} by {letter.transform}"
    if letter.attempts:
        text += f", run {letter.attempts}"
    return f"{text}, {letter.error}" if letter.error else text
