"""Every write of the protocol, in one place: entries, retry records, tombstones, dead letters, registrations.

Each is a sequence (see `sequence`): it ends when the write is durable and the lock table knows it. A write that is
not acknowledged ends in `WriteFailedError`, and whoever waits for it completes nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from msgspec import Struct, structs

from kafetrain.client.ports import ClientError, OutgoingRecord, RecordTooLargeForClientError
from kafetrain.clock import Clock
from kafetrain.core.control import Control
from kafetrain.core.entry import Entry, Registration, encode_entry, encode_registration, registration_key
from kafetrain.core.headers import DeadLetterState, dlq_headers, dlq_mark_headers, retry_headers, tombstone_headers
from kafetrain.errors import RecordTooLargeError, WriteFailedError
from kafetrain.futures import LightFuture
from kafetrain.record import DlqHeader, Headers, MessageId, Record, RetryHeader, TopicPartition, place_of
from kafetrain.settings import Settings
from kafetrain.topic_setup import PreparedTopics
from kafetrain.tracker.hooks import Hooks
from kafetrain.tracker.sequence import Sequence
from kafetrain.tracker.state import TrackerState

__all__ = ["DeadLetter", "SourceRecord", "Writes", "letter_of", "payload"]


class SourceRecord(Struct, frozen=True, gc=False):
    """A source record, whether it comes from its topic or out of a retry record."""

    id: MessageId
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int
    given: Record | None = None
    """As its handler was given it, where that ran."""
    transform: str | None = None
    """What changed its payload, where an operator had it replayed so."""

    def __str__(self) -> str:
        return f"{self.id.topic}[{self.id.partition}]@{self.id.offset}"

    __repr__ = __str__


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Why a record ends without success."""

    state: str
    attempts: int
    error_type: str | None = None
    reason: str | None = None
    first_failure_ms: int | None = None

    @classmethod
    def parked(cls, entry: Entry) -> DeadLetter:
        """It waits behind a dead record of its key."""
        return cls(DeadLetterState.PARKED, entry.attempt, entry.error_type, entry.error, entry.first_failure_ms)


def payload(record: Record, name: str) -> bytes | None:
    """The record's key or value as bytes; `TypeError` where a deserializer has been at work."""
    data = getattr(record, name)
    if data is None or isinstance(data, bytes):
        return data
    if isinstance(data, (bytearray, memoryview)):
        return bytes(data)
    raise TypeError(
        f"the {name} of {place_of(record)} is a {type(data).__name__}, not bytes: consume without deserializers and "
        f"decode in the handler, so that a redirected record leaves exactly as it came"
    )


class Sender(Protocol):
    """What is needed of a producer."""

    def send(self, record: OutgoingRecord) -> Future[int]: ...


def _at_once(call: Callable[[], object]) -> None:
    call()


def letter_of(
    source: SourceRecord, why: DeadLetter, place: TopicPartition, now_ms: int, topic_id: str = ""
) -> OutgoingRecord:
    """The record's dead letter, for that partition of the dead-letter topic."""
    headers = dlq_headers(
        source.id,
        source.headers,
        state=why.state,
        attempts=why.attempts,
        error_type=why.error_type,
        reason=why.reason,
        now_ms=now_ms,
        first_failure_ms=why.first_failure_ms,
        source_timestamp_ms=source.timestamp_ms,
        topic_id=topic_id,
    )
    if _is_empty(source):
        headers.append((DlqHeader.NULL_VALUE, b"1"))
    return OutgoingRecord(place.topic, place.partition, source.key, _value(source), headers)


class Writes:
    """Any thread may start a sequence; the sequencer's thread goes on with it.

    `when_durable` is given what must not happen before the writes so far are durable: at once, where each is by its
    acknowledgement. `atomic`: they are written in transactions.
    """

    def __init__(
        self,
        producer: Sender,
        state: TrackerState,
        settings: Settings,
        clock: Clock,
        limit_of: Callable[[str], int | None] = lambda topic: None,
        hooks: Hooks | None = None,
        when_durable: Callable[[Callable[[], object]], object] = _at_once,
        *,
        atomic: bool = False,
    ) -> None:
        self.when_durable, self._atomic = when_durable, atomic
        self._producer, self._state, self._settings, self._clock = producer, state, settings, clock
        self._limit_of = limit_of  # a topic's max.message.bytes, where the brokers tell
        self._hooks = hooks or Hooks()
        self._mutex = threading.Lock()  # guards what follows; nothing is called or taken inside
        self._registering: dict[TopicPartition, LightFuture[None]] = {}

    def entry(
        self, topic: PreparedTopics, id: MessageId, entry: Entry, headers: Headers = (), *, alone: bool = False
    ) -> Sequence[Entry]:
        """Write an entry. Returns it with its offset. `headers`: who asked for it, where somebody did. `alone`: whether
        its retry record is there is not known."""
        redirect = self._redirect(topic, id.partition)
        yield from self._register(topic, redirect, id)
        if self._atomic and not alone:
            entry = structs.replace(entry, atomic=True)
        out = OutgoingRecord(redirect.topic, redirect.partition, str(id).encode(), encode_entry(entry), headers)
        offset = yield from self._write("lock", id, out)
        entry = structs.replace(entry, log_offset=offset)
        self.when_durable(partial(self._state.put, redirect, id.partition, id.offset, entry))
        return entry

    def tombstone(
        self, topic: PreparedTopics, id: MessageId, key: bytes | None, headers: Headers = ()
    ) -> Sequence[None]:
        """End an id's lock. `headers`: who asked for it, where somebody did."""
        redirect = self._redirect(topic, id.partition)
        out = OutgoingRecord(
            redirect.topic, redirect.partition, str(id).encode(), None, [*tombstone_headers(key), *headers]
        )
        offset = yield from self._write("tombstone", id, out)
        self.when_durable(partial(self._state.end, redirect, id.partition, id.offset, key, offset, ours=True))

    def retry_record(self, topic: PreparedTopics, source: SourceRecord, entry: Entry) -> Sequence[None]:
        """Append the record to the retry topic; `entry` is acknowledged."""
        headers = retry_headers(
            source.id,
            source.headers,
            timestamp_ms=source.timestamp_ms,
            entry=entry,
            max_retries=self._settings.max_retries,
            lock_offset=entry.log_offset,
            transform=source.transform,
        )
        if _is_empty(source):
            headers.append((RetryHeader.NULL_VALUE, b"1"))
        partition = self._redirect(topic, source.id.partition).partition
        out = OutgoingRecord(topic.names.retry, partition, source.key, _value(source), headers)
        yield from self._write("retry record", source, out)

    def dead_letter(self, topic: PreparedTopics, source: SourceRecord, why: DeadLetter) -> Sequence[tuple[int, int]]:
        """Append the record to the dead-letter topic. Returns its partition and offset there."""
        partition = source.id.partition % topic.width
        place = TopicPartition(topic.names.dlq, partition)
        out = letter_of(source, why, place, self._clock.now_ms(), topic.topic_id)
        offset = yield from self._write("dead letter", source, out)
        return partition, offset

    def die(
        self,
        topic: PreparedTopics,
        source: SourceRecord,
        entry: Entry,
        why: DeadLetter,
        check_ours: Callable[[], None],
        *,
        locked: bool,
        error: BaseException | None = None,
    ) -> Sequence[None]:
        """The record's end without success: its dead letter, then what becomes of its key.

        `locked`: it has an entry, which a tombstone ends where dead keys are freed. In a transaction a tombstone is
        written anyway: delivered again, the record is known to have ended, and no second dead letter follows.
        `check_ours` raises where the partition went to another instance between the two. `error`: what its handler
        raised, for the hooks.
        """
        dead_at = yield from self.dead_letter(topic, source, why)
        if source.given is not None and error is not None:
            self.when_durable(partial(self._hooks.dead_letter, source.given, error))
        check_ours()
        if not self._settings.free_on_dlq:
            yield from self.entry(topic, source.id, entry.died(dead_at))
            self.when_durable(partial(self._hooks.dead_key, source.key))
        elif locked or self._atomic:
            yield from self._register(topic, self._redirect(topic, source.id.partition), source.id)
            yield from self.tombstone(topic, source.id, source.key)

    def park(self, topic: PreparedTopics, source: SourceRecord, entry: Entry) -> Sequence[None]:
        """Move a record that waits behind a dead one to the dead-letter topic."""
        yield from self.bury(topic, source, DeadLetter.parked(entry))

    def bury(
        self, topic: PreparedTopics, source: SourceRecord, why: DeadLetter, headers: Headers = ()
    ) -> Sequence[None]:
        """Move a record to the dead-letter topic, and end its lock."""
        yield from self.dead_letter(topic, source, why)
        yield from self.tombstone(topic, source.id, source.key, headers)

    def mark_replayed(self, topic: PreparedTopics, control: Control, key: bytes | None) -> Sequence[None]:
        """Say in the dead-letter topic that this dead letter was put into retry again."""
        headers = dlq_mark_headers(control)
        out = OutgoingRecord(topic.names.dlq, control.id.partition % topic.width, key, b"", headers)
        yield from self._write("mark", control.id, out)

    def registration(self, topic: PreparedTopics, redirect: TopicPartition) -> Sequence[None]:
        """Say that this group keeps locks here. Other groups' purges look for it."""
        group = self._settings.group_id
        fresh = Registration(topic.names.source, topic.topic_id, self._clock.now_ms())
        out = OutgoingRecord(redirect.topic, redirect.partition, registration_key(group), encode_registration(fresh))
        offset = yield from self._write("registration", f"group {group}", out)
        self.when_durable(partial(self._state.register, redirect, group, replace(fresh, log_offset=offset)))

    def _register(self, topic: PreparedTopics, redirect: TopicPartition, id: MessageId) -> Sequence[None]:
        """Before the first entry. Those that come while it is under way wait for it, too."""
        table = self._state.tables.get(redirect)
        if table is not None and id.group in table.registrations:
            return
        if self._atomic:  # one that is under way elsewhere may be aborted
            yield from self.registration(topic, redirect)
            return
        mine: LightFuture[None] = LightFuture()
        with self._mutex:
            under_way = self._registering.setdefault(redirect, mine)
        if under_way is not mine:
            yield under_way
            return
        try:
            yield from self.registration(topic, redirect)
        except BaseException as error:
            self._registered(redirect)
            mine.set_exception(error)
            raise
        self._registered(redirect)
        mine.set_result(None)

    def _registered(self, redirect: TopicPartition) -> None:
        with self._mutex:
            del self._registering[redirect]

    def _redirect(self, topic: PreparedTopics, partition: int) -> TopicPartition:
        if (redirect := topic.redirect_for(partition)) is None:
            raise WriteFailedError(
                "lock",
                f"{topic.names.source}[{partition}]",
                topic.names.redirect,
                ValueError("this partition has no partner there yet"),
            )
        return redirect

    def _write(self, what: str, source: object, out: OutgoingRecord) -> Sequence[int]:
        try:
            offset: int = yield self._producer.send(out)
        except RecordTooLargeForClientError:
            raise RecordTooLargeError(str(source), out.topic, _size(out), self._limit_of(out.topic)) from None
        except ClientError as error:
            raise WriteFailedError(what, str(source), out.topic, error) from error
        return offset


def _value(source: SourceRecord) -> bytes | None:
    # Clients refuse a record without key and value, though Kafka has them; a header says what it was.
    return b"" if _is_empty(source) else source.value


def _is_empty(source: SourceRecord) -> bool:
    return source.key is None and source.value is None


def _size(out: OutgoingRecord) -> int:
    headers = sum(len(name) + len(value or b"") + 10 for name, value in out.headers)
    return len(out.key or b"") + len(out.value or b"") + headers + 100
