"""Records, their identity, and the catalogue of header names.

A record is whatever the client delivers, as long as it has the attributes of `Record`: kafka-python's and
aiokafka's consumer records do as they are; `as_record` adapts confluent-kafka's messages.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

__all__ = [
    "BackoffPolicy",
    "DlqHeader",
    "Handler",
    "Headers",
    "MessageId",
    "Middleware",
    "Record",
    "RetryHeader",
    "TopicPartition",
    "as_record",
    "get_original_topic",
    "get_retry_attempt",
    "get_retry_reason",
    "header",
    "is_retry_message",
    "json_of",
    "place_of",
    "text_of",
]

Headers: TypeAlias = "Sequence[tuple[str, bytes | None]]"

MOST_DIGITS = 19
"""Of a number in a header or an id. Python refuses to read thousands."""


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


@runtime_checkable
class Record(Protocol):
    """What kafetrain needs of a consumed record. `key`, `value` are bytes or None; `timestamp` is in ms."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> Any: ...
    @property
    def value(self) -> Any: ...
    @property
    def headers(self) -> Headers: ...
    @property
    def timestamp(self) -> int: ...


Handler: TypeAlias = Callable[[Record], object]
"""Returning is success, raising is failure; a returned `concurrent.futures.Future` decides when it is done."""

Middleware: TypeAlias = Callable[[Record, Handler], object]
"""Called with the record and what comes next; calls it, or does not."""

BackoffPolicy: TypeAlias = Callable[[int], timedelta]
"""The wait before a retry, given how many executions have failed so far (from 1)."""


class RetryHeader:
    """Headers of retry records and tombstones. Values are UTF-8 text, times are ms since the epoch."""

    ID = "x-retry-id"
    GROUP = "x-retry-group"
    TOPIC = "x-retry-topic"
    PARTITION = "x-retry-partition"
    OFFSET = "x-retry-offset"
    TIMESTAMP = "x-retry-timestamp"
    ATTEMPT = "x-retry-attempt"
    MAX = "x-retry-max"
    DUE = "x-retry-due"
    FIRST_FAILURE = "x-retry-first-failure"
    REASON = "x-retry-reason"
    ERROR_TYPE = "x-retry-error-type"
    LOCK_OFFSET = "x-retry-lock-offset"
    NULL_HEADERS = "x-retry-null-headers"
    """Positions of user headers whose value was null: clients cannot send those, so they travel as empty."""
    NULL_VALUE = "x-retry-null-value"
    """The record had neither key nor value, which clients cannot send: its value travels as empty."""
    KEY = "x-retry-key"
    """On tombstones: the record key, raw bytes; absent where the record has no key."""
    CONTROL = "x-retry-control"
    """On control records: what is asked for the key (`release`, `replay`, `append`, `retry-now`, `skip`)."""
    DEAD_AT = "x-retry-dead-at"
    """On control records that append one dead letter: its `partition/offset`."""
    COMMAND = "x-retry-command"
    """On control records, and on what was written because of one: the command's own id."""
    BY = "x-retry-by"
    """Who asked for it."""
    AT = "x-retry-at"
    """When it was asked for."""
    WHY = "x-retry-why"
    """Why, in the operator's words."""
    TRANSFORM = "x-retry-transform"
    """`module:function` that changed the payload before it ran again."""


class DlqHeader:
    """Headers of dead-letter records. Values are UTF-8 text, times are ms since the epoch."""

    ID = "x-dlq-id"
    GROUP = "x-dlq-group"
    TOPIC = "x-dlq-topic"
    PARTITION = "x-dlq-partition"
    OFFSET = "x-dlq-offset"
    ATTEMPTS = "x-dlq-attempts"
    REASON = "x-dlq-reason"
    ERROR_TYPE = "x-dlq-error-type"
    STATE = "x-dlq-state"
    TIMESTAMP = "x-dlq-timestamp"
    FIRST_FAILURE = "x-dlq-first-failure"
    TOPIC_ID = "x-dlq-topic-id"
    """Of the source topic: another one since then has the same offsets for other records."""
    SOURCE_TIMESTAMP = "x-dlq-source-timestamp"
    """The source record's own timestamp."""
    NULL_HEADERS = "x-dlq-null-headers"
    NULL_VALUE = "x-dlq-null-value"
    COMMAND = "x-dlq-command"
    """On copies that a command changed, and marks that it left: the command's own id."""
    TRANSFORM = "x-dlq-transform"
    """On a copy that a command changed: the `module:function` that did."""
    REPLAYED = "x-dlq-replayed"
    """On a mark: the `partition/offset` of the dead letter that was put into retry again."""


class MessageId(NamedTuple):
    """`group/topic/partition/offset` of the source record: the same however often it is delivered.

    `/` and `%` of the group are percent-encoded, so that an id has four parts whatever the group's name.
    """

    group: str
    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{quote_group(self.group)}/{self.topic}/{self.partition}/{self.offset}"

    @classmethod
    def parse(cls, text: str) -> MessageId:
        """The id that `text` names; `ValueError` where it names none."""
        parts = text.split("/")
        if len(parts) != 4 or not parts[0] or not parts[1]:
            raise ValueError("not group/topic/partition/offset")
        partition, offset = decimal(parts[2], below=1 << 31), decimal(parts[3])
        if partition is None or offset is None:
            raise ValueError("partition and offset must be decimal, and such as Kafka has")
        return cls(unquote_group(parts[0]), parts[1], partition, offset)


def quote_group(group: str) -> str:
    return group.replace("%", "%25").replace("/", "%2F")


def unquote_group(text: str) -> str:
    return text.replace("%2F", "/").replace("%25", "%")


def decimal(text: str | bytes, below: int = 1 << 63) -> int | None:
    """The number that decimal digits say; None where they are none, or say one that Kafka does not have."""
    if not (text.isascii() and text.isdigit()) or len(text) > MOST_DIGITS:
        return None
    number = int(text)
    return number if number < below else None


def header(record: Record, name: str) -> str | None:
    """The last header of that name as text; None where it is absent, null or not UTF-8."""
    for key, value in reversed(record.headers or ()):
        if key == name:
            try:
                return None if value is None else value.decode()
            except UnicodeDecodeError:
                return None
    return None


def is_retry_message(record: Record) -> bool:
    """True for a record that has been in a retry topic: it failed, or waited behind one of its key that did."""
    return header(record, RetryHeader.ID) is not None


def get_retry_attempt(record: Record) -> int:
    """How many executions of the handler have failed for this record so far; 0 on the first."""
    return decimal(header(record, RetryHeader.ATTEMPT) or "") or 0


def get_original_topic(record: Record) -> str:
    """The source topic of a record, whether it comes from there or from a retry or dead-letter topic."""
    return header(record, RetryHeader.TOPIC) or header(record, DlqHeader.TOPIC) or record.topic


def get_retry_reason(record: Record) -> str | None:
    """The text of the error that last made this record fail; None if none did."""
    return header(record, RetryHeader.REASON)


def text_of(record: Record, encoding: str = "utf-8") -> str:
    """The value as text. Raises `UnicodeDecodeError`, and `ValueError` for a tombstone (a null value)."""
    if record.value is None:
        raise ValueError(f"{place_of(record)} is a tombstone: it has no value")
    return record.value if isinstance(record.value, str) else bytes(record.value).decode(encoding)


def json_of(record: Record) -> Any:
    """The value parsed as JSON. Raises `ValueError` where it is none."""
    return json.loads(text_of(record))


def place_of(record: Record) -> str:
    """`topic[partition]@offset`: how logs and errors name a record."""
    return f"{record.topic}[{record.partition}]@{record.offset}"


class _Adapted:
    """A confluent-kafka `Message` with the attributes of `Record`."""

    __slots__ = ("headers", "key", "offset", "partition", "timestamp", "topic", "value")

    def __init__(self, message: Any) -> None:
        self.topic: str = message.topic()
        self.partition: int = message.partition()
        self.offset: int = message.offset()
        self.key: bytes | None = message.key()
        self.value: bytes | None = message.value()
        self.headers: Headers = tuple(message.headers() or ())
        self.timestamp: int = message.timestamp()[1]


def as_record(message: Any) -> Record:
    """`message` as a `Record`: itself where it has the attributes, adapted where it is confluent-kafka's.

    Raises `TypeError` for anything else, and for a confluent-kafka message that carries an error.
    """
    if callable(getattr(message, "topic", None)):
        if message.error() is not None:
            raise TypeError(f"this message carries an error and no record: {message.error()}")
        return _Adapted(message)
    if isinstance(message, Record):
        return message
    missing = [name for name in _Adapted.__slots__ if not hasattr(message, name)]
    raise TypeError(f"{type(message).__name__} is not a record: it has no {', '.join(missing)}")
