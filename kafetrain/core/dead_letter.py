"""What a record of the dead-letter topic says: where it came from, why it is there, and what it was before."""

from __future__ import annotations

from dataclasses import dataclass

from kafetrain.core.headers import Malformed, restored
from kafetrain.record import DlqHeader, Headers, MessageId, Record

__all__ = ["DeadLetterInfo", "decode_dead_letter"]

_OURS = frozenset(value for name, value in vars(DlqHeader).items() if name.isupper())


@dataclass(frozen=True, slots=True)
class DeadLetterInfo:
    """Times are ms since the epoch."""

    id: MessageId
    state: str
    attempts: int
    error_type: str | None
    reason: str | None
    at_ms: int
    first_failure_ms: int | None
    source_timestamp_ms: int
    user_headers: Headers
    null_value: bool
    """The value travels as empty; it was null."""
    command: str | None
    transform: str | None
    topic_id: str | None
    replayed: tuple[int, int] | None
    """Of a mark: partition and offset of the dead letter that was put into retry again."""


def decode_dead_letter(record: Record) -> DeadLetterInfo:
    """Raises `Malformed`, with what is missing or wrong. Texts that are damaged are read as far as they go."""
    headers = record.headers or ()
    start = next((i for i in range(len(headers) - 1, -1, -1) if headers[i][0] == DlqHeader.ID), -1)
    if start < 0:
        raise Malformed(f"no {DlqHeader.ID}")
    ours = {name: value for name, value in headers[start:] if name in _OURS and value is not None}
    later = tuple(pair for pair in headers[start:] if pair[0] not in _OURS)

    def text(name: str) -> str | None:
        return None if name not in ours else ours[name].decode("utf-8", "replace")

    def number(name: str) -> int | None:
        digits = text(name)
        return int(digits) if digits is not None and digits.isdecimal() and len(digits) < 20 else None

    try:
        id = MessageId.parse(text(DlqHeader.ID) or "")
    except ValueError as error:
        raise Malformed(f"{DlqHeader.ID}: {error}") from None
    partition, _, offset = (text(DlqHeader.REPLAYED) or "").partition("/")
    at_ms, timestamp_ms = number(DlqHeader.TIMESTAMP), number(DlqHeader.SOURCE_TIMESTAMP)
    return DeadLetterInfo(
        id=id,
        state=text(DlqHeader.STATE) or "unknown",
        attempts=number(DlqHeader.ATTEMPTS) or 0,
        error_type=text(DlqHeader.ERROR_TYPE),
        reason=text(DlqHeader.REASON),
        at_ms=record.timestamp if at_ms is None else at_ms,
        first_failure_ms=number(DlqHeader.FIRST_FAILURE),
        source_timestamp_ms=record.timestamp if timestamp_ms is None else timestamp_ms,
        user_headers=restored(headers[:start], ours.get(DlqHeader.NULL_HEADERS)) + later,
        null_value=DlqHeader.NULL_VALUE in ours,
        command=text(DlqHeader.COMMAND),
        transform=text(DlqHeader.TRANSFORM),
        topic_id=text(DlqHeader.TOPIC_ID),
        replayed=(int(partition), int(offset)) if partition.isdecimal() and offset.isdecimal() else None,
    )
