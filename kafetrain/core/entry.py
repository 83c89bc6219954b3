"""Redirect entries: what the redirect topic says about one message id.

An entry is JSON, readable by a person with any Kafka tool. Fields it does not know are ignored, so that a field
can be added without a new format; `v` rises only when an older reader would misunderstand.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal

from msgspec import DecodeError, Meta, Struct, structs
from msgspec.json import Decoder, Encoder

from kafetrain.record import quote_group, unquote_group

__all__ = [
    "FORMAT",
    "MOST_ATTEMPTS",
    "NOT_PLAIN",
    "Entry",
    "NewerFormat",
    "PlainEntry",
    "Registration",
    "State",
    "Unreadable",
    "cut",
    "decode_entry",
    "decode_plain",
    "decode_registration",
    "encode_entry",
    "encode_registration",
    "registration_group",
    "registration_key",
]

FORMAT = 1
MAX_ERROR_BYTES = 1024
MOST_ATTEMPTS = (1 << 31) - 1
"""More are read as so many: there is always room to count one on."""


class State(str, Enum):
    """Of a lock. An ended one has no entry."""

    PENDING = "pending"
    DEAD = "dead"


class Unreadable(ValueError):
    """A value that is no entry of any format."""


class NewerFormat(ValueError):
    """An entry of a format that only a newer version can read."""

    def __init__(self, version: object) -> None:
        super().__init__(f"format {version!r}")
        self.version = version


class Entry(Struct, gc=False):
    """One lock. Replaced as a whole, never changed in place; times are ms since the epoch."""

    key: bytes | None
    state: State = State.PENDING
    attempt: int = 0
    """Executions of the handler that failed so far."""
    due_ms: int = 0
    first_failure_ms: int | None = None
    error_type: str | None = None
    error: str | None = None
    dead_at: tuple[int, int] | None = None
    """Partition and offset of the dead letter; only of a dead one."""
    log_offset: int = -1
    """Where the redirect topic holds this version."""
    readable: bool = True
    """False: the value in the log was garbage; key, attempt and due come with the retry record."""
    atomic: bool = False
    """Written in one transaction with its retry record, or after it: where the one is, so is the other."""

    def failed(self, *, due_ms: int, now_ms: int, error_type: str, error: str) -> Entry:
        """After one more execution that failed."""
        first_failure_ms = now_ms if self.first_failure_ms is None else self.first_failure_ms
        return Entry(
            self.key,
            self.state,
            self.attempt + 1,
            due_ms,
            first_failure_ms,
            cut(error_type),
            cut(error),
            self.dead_at,
            readable=self.readable,
            atomic=self.atomic,
        )

    def died(self, dead_at: tuple[int, int]) -> Entry:
        """After its dead letter was written."""
        return structs.replace(self, state=State.DEAD, dead_at=dead_at, log_offset=-1)


def cut(text: str, limit: int = MAX_ERROR_BYTES) -> str:
    """`text` in at most `limit` bytes of UTF-8, without half a character at its end."""
    raw = text.encode("utf-8", "replace")
    return raw.decode() if len(raw) <= limit else raw[:limit].decode("utf-8", "ignore")


class _Fields(Struct, omit_defaults=True, gc=False):
    """As they stand in the log. The key is base64 there."""

    v: int
    key: bytes | None
    state: State
    attempt: int
    due: int
    first_failure: int | None = None
    error_type: str | None = None
    error: str | None = None
    dlq_partition: int | None = None
    dlq_offset: int | None = None
    atomic: bool = False


_encode = Encoder().encode


def encode_entry(entry: Entry) -> bytes:
    dlq_partition, dlq_offset = entry.dead_at or (None, None)
    return _encode(
        _Fields(
            FORMAT,
            entry.key,
            entry.state,
            entry.attempt,
            entry.due_ms,
            entry.first_failure_ms,
            entry.error_type,
            entry.error,
            dlq_partition,
            dlq_offset,
            entry.atomic,
        )
    )


_Number = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]


class PlainEntry(Struct, gc=False):
    """What nearly all entries are: pending, of this format, and with nothing in them that has to be put right."""

    v: Literal[1]
    key: bytes | None
    state: Literal["pending"]
    attempt: Annotated[int, Meta(ge=0, le=MOST_ATTEMPTS)]
    due: _Number
    first_failure: _Number | None = None
    error_type: str | None = None
    error: str | None = None
    dlq_partition: None = None
    atomic: bool = False

    def entry(self, log_offset: int) -> Entry:
        return Entry(
            self.key,
            State.PENDING,
            self.attempt,
            self.due,
            self.first_failure,
            self.error_type,
            self.error,
            log_offset=log_offset,
            atomic=self.atomic,
        )


decode_plain = Decoder(PlainEntry).decode
"""Raises one of `NOT_PLAIN` for whatever has to be looked at closely, which takes ten times as long."""
NOT_PLAIN = (DecodeError, UnicodeDecodeError, RecursionError)


def decode_entry(value: bytes, log_offset: int) -> Entry:
    """Raises `NewerFormat`, or `Unreadable` for anything that is no entry."""
    try:
        return decode_plain(value).entry(log_offset)
    except NOT_PLAIN:
        return _decode_closely(value, log_offset)


def _decode_closely(value: bytes, log_offset: int) -> Entry:
    try:
        fields = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise Unreadable(str(error)) from None
    if not isinstance(fields, dict):
        raise Unreadable("not an object")
    version: Any = fields.get("v")
    if not _is_int(version):
        raise Unreadable("no format number")
    if version > FORMAT:
        raise NewerFormat(version)
    try:
        key = fields["key"]
        dead_at = None
        if fields.get("dlq_partition") is not None:
            dead_at = (_int(fields["dlq_partition"]), _int(fields["dlq_offset"]))
        return Entry(
            key=None if key is None else base64.b64decode(key, validate=True),
            state=_state(fields["state"]),
            attempt=min(_int(fields["attempt"]), MOST_ATTEMPTS),
            due_ms=_int(fields["due"]),
            first_failure_ms=None if fields.get("first_failure") is None else _int(fields["first_failure"]),
            error_type=_text(fields.get("error_type")),
            error=_text(fields.get("error")),
            dead_at=dead_at,
            log_offset=log_offset,
            atomic=fields.get("atomic") is True,
        )
    except (KeyError, ValueError, TypeError, binascii.Error) as error:
        raise Unreadable(str(error)) from None


def _state(value: object) -> State:
    try:
        return State(value)
    except ValueError:
        raise ValueError("no state that a lock has") from None  # the enumeration's own text quotes what stands there


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _int(value: Any) -> int:
    if not _is_int(value) or not 0 <= value < 1 << 63:
        raise ValueError("not a number that Kafka has")
    return int(value)


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError("not text")
    return value.encode("utf-8", "replace").decode()  # JSON can say half a character, which no record can carry


@dataclass(frozen=True, slots=True)
class Registration:
    """A group says that it keeps locks in this redirect partition, and for which incarnation of the topic."""

    topic: str
    topic_id: str
    since_ms: int
    log_offset: int = -1


def registration_key(group: str) -> bytes:
    """Two parts, where an id has four: the one is never taken for the other."""
    return f"group/{quote_group(group)}".encode()


def registration_group(key: str) -> str | None:
    """The group that a record key registers; None where it is no registration."""
    kind, _, group = key.partition("/")
    return unquote_group(group) if kind == "group" and group and "/" not in group else None


def encode_registration(registration: Registration) -> bytes:
    fields = {
        "v": FORMAT,
        "topic": registration.topic,
        "topic_id": registration.topic_id,
        "since": registration.since_ms,
    }
    return json.dumps(fields, separators=(",", ":")).encode()


def decode_registration(value: bytes, log_offset: int) -> Registration:
    """Raises `Unreadable`."""
    try:
        fields = json.loads(value)
        return Registration(str(fields["topic"]), str(fields["topic_id"]), _int(fields["since"]), log_offset)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Unreadable(str(error)) from None
