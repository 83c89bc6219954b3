"""Headers of retry and dead-letter records, both ways.

Ours form one block behind the record's own, which keep their order and their duplicates, whatever their names. A
record's own header that looks like ours (a copy of a retried record, say) therefore survives, and never rules.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from functools import lru_cache

from msgspec import Struct

from kafetrain.core.control import Audit, Control
from kafetrain.core.entry import MOST_ATTEMPTS, Entry, cut
from kafetrain.record import MOST_DIGITS, DlqHeader, Headers, MessageId, Record, RetryHeader, decimal

__all__ = [
    "DeadLetterState",
    "Malformed",
    "RetryInfo",
    "decode_retry",
    "dlq_headers",
    "dlq_mark_headers",
    "place_in_log",
    "retry_headers",
    "taken_apart",
    "tombstone_headers",
]


class Malformed(ValueError):
    """A record in a retry topic without the headers that every retry record has."""


class DeadLetterState:
    """Why a record is in the dead-letter topic."""

    EXHAUSTED = "exhausted"
    NOT_RETRIABLE = "not-retriable"
    PARKED = "parked"
    MALFORMED = "malformed"
    SKIPPED = "skipped"
    """An operator took it out of the way."""
    TRANSFORMED = "transformed"
    """A copy with another payload, made by a command that replays it. The original stays."""
    RESET = "reset"
    """It was pending when its source topic was deleted and created again."""
    REPLAYED = "replayed"
    """No record: the mark that a dead letter was put into retry again while its key was not dead."""


class RetryInfo(Struct, frozen=True, gc=False):
    """What the headers of a retry record say, and the source record's own headers."""

    id: MessageId
    timestamp_ms: int
    attempt: int
    due_ms: int
    lock_offset: int
    control: Control | None
    transform: str | None
    """What changed its payload, where an operator had it replayed so."""
    user_headers: Headers
    null_value: bool
    """The value travels as empty; it was null."""


_OURS = frozenset(value for name, value in vars(RetryHeader).items() if name.isupper())


def retry_headers(
    id: MessageId,
    own: Headers,
    *,
    timestamp_ms: int,
    entry: Entry,
    max_retries: int | None,
    lock_offset: int | None = None,
    transform: str | None = None,
    nulls_as_empty: bool = True,
) -> list[tuple[str, bytes | None]]:
    """The record's own headers, then ours with the entry's present values.

    `nulls_as_empty`: for sending. Without it, null values stay null: for the handler's view.
    """
    headers: list[tuple[str, bytes | None]] = (
        [(name, value or b"") for name, value in own] if nulls_as_empty else [*own]
    )
    headers += (
        (RetryHeader.ID, str(id).encode()),
        *_of_partition(id.group, id.topic, id.partition, max_retries),
        (RetryHeader.OFFSET, b"%d" % id.offset),
        (RetryHeader.TIMESTAMP, b"%d" % timestamp_ms),
        (RetryHeader.ATTEMPT, b"%d" % entry.attempt),
        (RetryHeader.DUE, b"%d" % entry.due_ms),
    )
    if entry.first_failure_ms is not None:
        headers.append((RetryHeader.FIRST_FAILURE, b"%d" % entry.first_failure_ms))
    if entry.error is not None:
        headers.append((RetryHeader.REASON, entry.error.encode()))
    if entry.error_type is not None:
        headers.append((RetryHeader.ERROR_TYPE, entry.error_type.encode()))
    if lock_offset is not None:
        headers.append((RetryHeader.LOCK_OFFSET, b"%d" % lock_offset))
    if transform is not None:
        headers.append((RetryHeader.TRANSFORM, transform.encode()))
    if nulls_as_empty and (nulls := _nulls(own)) is not None:
        headers.append((RetryHeader.NULL_HEADERS, nulls.encode()))
    return headers


@lru_cache(maxsize=4096)
def _of_partition(
    group: str, topic: str, partition: int, max_retries: int | None
) -> tuple[tuple[str, bytes | None], ...]:
    """What all retry records of a source partition say."""
    ours = (
        (RetryHeader.GROUP, group),
        (RetryHeader.TOPIC, topic),
        (RetryHeader.PARTITION, partition),
        (RetryHeader.MAX, max_retries),
    )
    return tuple(_encoded(ours))


def dlq_headers(
    id: MessageId,
    own: Headers,
    *,
    state: str,
    attempts: int,
    error_type: str | None,
    reason: str | None,
    now_ms: int,
    first_failure_ms: int | None,
    source_timestamp_ms: int,
    topic_id: str = "",
) -> list[tuple[str, bytes | None]]:
    """The record's own headers, then those of the dead letter."""
    ours: list[tuple[str, object]] = [
        (DlqHeader.ID, id),
        (DlqHeader.GROUP, id.group),
        (DlqHeader.TOPIC, id.topic),
        (DlqHeader.PARTITION, id.partition),
        (DlqHeader.OFFSET, id.offset),
        (DlqHeader.ATTEMPTS, attempts),
        (DlqHeader.REASON, None if reason is None else cut(reason)),
        (DlqHeader.ERROR_TYPE, None if error_type is None else cut(error_type)),
        (DlqHeader.STATE, state),
        (DlqHeader.TIMESTAMP, now_ms),
        (DlqHeader.FIRST_FAILURE, first_failure_ms),
        (DlqHeader.SOURCE_TIMESTAMP, source_timestamp_ms),
        (DlqHeader.TOPIC_ID, topic_id or None),
    ]
    return _joined(own, ours, DlqHeader.NULL_HEADERS)


def dlq_mark_headers(control: Control) -> list[tuple[str, bytes | None]]:
    """Of the mark that a dead letter was put into retry again."""
    id, at = control.id, control.dead_at
    return _encoded(
        [
            (DlqHeader.ID, id),
            (DlqHeader.GROUP, id.group),
            (DlqHeader.TOPIC, id.topic),
            (DlqHeader.PARTITION, id.partition),
            (DlqHeader.OFFSET, id.offset),
            (DlqHeader.STATE, DeadLetterState.REPLAYED),
            (DlqHeader.TIMESTAMP, control.audit.at_ms),
            (DlqHeader.COMMAND, control.audit.command),
            (DlqHeader.REPLAYED, None if at is None else f"{at[0]}/{at[1]}"),
        ]
    )


def tombstone_headers(key: bytes | None) -> list[tuple[str, bytes | None]]:
    """A tombstone says whose key it frees, so that this is known after compaction took the entry."""
    return [] if key is None else [(RetryHeader.KEY, key)]


def _encoded(ours: Iterable[tuple[str, object]]) -> list[tuple[str, bytes | None]]:
    return [(name, str(value).encode()) for name, value in ours if value is not None]


def _joined(own: Headers, ours: list[tuple[str, object]], nulls_name: str) -> list[tuple[str, bytes | None]]:
    ours.append((nulls_name, _nulls(own)))
    return [(name, value or b"") for name, value in own] + _encoded(ours)


def _nulls(own: Headers) -> str | None:
    """Where the record's own headers have no value; None: nowhere."""
    return ",".join([str(i) for i, (_, value) in enumerate(own) if value is None]) or None


def taken_apart(
    record: Record, first: str, names: Container[str], nulls_name: str
) -> tuple[tuple[tuple[str, bytes | None], ...], dict[str, bytes]]:
    """The record's own headers as they were, and our block behind them, the last one that begins with `first`.

    Raises `Malformed` where there is none.
    """
    headers = record.headers or ()
    start = next((i for i in range(len(headers) - 1, -1, -1) if headers[i][0] == first), -1)
    if start < 0:
        raise Malformed(f"no {first}")
    block = headers[start:]
    ours = {name: value for name, value in block if value is not None and name in names}
    own = _restored(headers[:start], ours.get(nulls_name))
    if len(ours) < len(block):  # something on its way added a header
        own += tuple(pair for pair in block if pair[0] not in names)
    return own, ours


def _restored(own: Headers, nulls: bytes | None) -> tuple[tuple[str, bytes | None], ...]:
    """With the nulls that travelled as empty."""
    if not nulls:
        return tuple(own)
    positions = {decimal(text) for text in nulls.split(b",")}
    return tuple((name, None if i in positions and not value else value) for i, (name, value) in enumerate(own))


def place_in_log(text: str) -> tuple[int, int] | None:
    """What `partition/offset` names; None where it is nothing of the kind."""
    first, _, second = text.partition("/")
    partition, offset = decimal(first, below=1 << 31), decimal(second)
    return None if partition is None or offset is None else (partition, offset)


def decode_retry(record: Record) -> RetryInfo:
    """Raises `Malformed`, with what is missing or wrong."""
    own, ours = taken_apart(record, RetryHeader.ID, _OURS, RetryHeader.NULL_HEADERS)
    try:
        id = MessageId.parse(ours[RetryHeader.ID].decode())
    except ValueError as error:
        raise Malformed(f"{RetryHeader.ID}: {error}") from None
    return RetryInfo(
        id,
        timestamp_ms=_number(ours, RetryHeader.TIMESTAMP, record.timestamp),
        attempt=min(max(0, _number(ours, RetryHeader.ATTEMPT, 0)), MOST_ATTEMPTS),
        due_ms=max(0, _number(ours, RetryHeader.DUE, 0)),
        lock_offset=_number(ours, RetryHeader.LOCK_OFFSET),
        control=_control(id, ours) if RetryHeader.CONTROL in ours else None,
        transform=_text(ours, RetryHeader.TRANSFORM, "") or None,
        user_headers=own,
        null_value=RetryHeader.NULL_VALUE in ours,
    )


def _text(ours: dict[str, bytes], name: str, default: str | None = None) -> str:
    if (found := ours.get(name)) is None:
        if default is None:
            raise Malformed(f"no {name}")
        return default
    try:
        return found.decode()
    except UnicodeDecodeError:
        raise Malformed(f"{name} is not UTF-8") from None


def _number(ours: dict[str, bytes], name: str, default: int | None = None) -> int:
    if (digits := ours.get(name)) is None:
        if default is None:
            raise Malformed(f"no {name}")
        return default
    if digits.isdigit() and len(digits) < MOST_DIGITS:
        return int(digits)
    if (found := decimal(digits.removeprefix(b"-"))) is None:
        raise Malformed(f"{name} is no number")
    return -found if digits.startswith(b"-") else found


def _control(id: MessageId, ours: dict[str, bytes]) -> Control:
    place = _text(ours, RetryHeader.DEAD_AT, "")
    dead_at = place_in_log(place)
    if place and dead_at is None:
        raise Malformed(f"{RetryHeader.DEAD_AT} is no partition/offset")
    return Control(
        action=_text(ours, RetryHeader.CONTROL),
        id=id,
        lock_offset=_number(ours, RetryHeader.LOCK_OFFSET),
        audit=Audit(
            command=_text(ours, RetryHeader.COMMAND, ""),
            by=_text(ours, RetryHeader.BY, "unknown"),
            at_ms=_number(ours, RetryHeader.AT, 0),
            why=_text(ours, RetryHeader.WHY, "") or None,
            transform=_text(ours, RetryHeader.TRANSFORM, "") or None,
        ),
        dead_at=dead_at,
    )
