"""What a record of the dead-letter topic says: where it came from, why it is there, and what it was before."""

from __future__ import annotations

from dataclasses import dataclass

from kafetrain.core.headers import Malformed, place_in_log, taken_apart
from kafetrain.record import DlqHeader, Headers, MessageId, Record, decimal

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
    own, ours = taken_apart(record, DlqHeader.ID, _OURS, DlqHeader.NULL_HEADERS)

    def text(name: str) -> str | None:
        return None if name not in ours else ours[name].decode("utf-8", "replace")

    def number(name: str) -> int | None:
        return decimal(text(name) or "")

    try:
        id = MessageId.parse(text(DlqHeader.ID) or "")
    except ValueError as error:
        raise Malformed(f"{DlqHeader.ID}: {error}") from None
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
        user_headers=own,
        null_value=DlqHeader.NULL_VALUE in ours,
        command=text(DlqHeader.COMMAND),
        transform=text(DlqHeader.TRANSFORM),
        topic_id=text(DlqHeader.TOPIC_ID),
        replayed=place_in_log(text(DlqHeader.REPLAYED) or ""),
    )
