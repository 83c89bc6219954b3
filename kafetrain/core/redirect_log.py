"""What one record of a redirect topic says. Pure: whoever reads the topic applies it to a lock table."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from kafetrain.core.entry import Entry, Registration, Unreadable, decode_entry, decode_registration, registration_group
from kafetrain.record import MessageId, Record, RetryHeader

__all__ = ["Change", "Ended", "NotAChange", "Opened", "Registered", "read_change", "tombstone_key"]


class NotAChange(ValueError):
    """A record that is damaged, or that nobody of ours wrote. The text says what is wrong with it."""


class Opened(NamedTuple):
    """The id is pending or dead. `unreadable`: why its value is no entry; it is taken as pending then."""

    id: MessageId
    entry: Entry
    unreadable: str | None = None


class Ended(NamedTuple):
    """A tombstone. `key`: the record's, as far as the tombstone tells it."""

    id: MessageId
    key: bytes | None


class Registered(NamedTuple):
    """A group keeps locks in this partition; None: no longer."""

    group: str
    registration: Registration | None


Change: TypeAlias = "Opened | Ended | Registered"


def read_change(record: Record, is_news: Callable[[MessageId], bool]) -> Change | None:
    """None: an id that `is_news` says no to, because it is not ours, say. Raises `NotAChange`, and `NewerFormat` for an
    entry that only a newer version can read."""
    try:
        text = (record.key or b"").decode()
    except UnicodeDecodeError:
        text = ""
    if (group := registration_group(text)) is not None:
        try:
            return Registered(group, None if record.value is None else decode_registration(record.value, record.offset))
        except Unreadable as error:
            raise NotAChange(f"its value is no registration ({error})") from None
    try:
        id = MessageId.parse(text)
    except ValueError:
        raise NotAChange("its key names no message id") from None
    if not is_news(id):
        return None
    if record.value is None:
        return Ended(id, tombstone_key(record))
    try:
        return Opened(id, decode_entry(record.value, record.offset))
    except Unreadable as error:
        return Opened(id, Entry(None, log_offset=record.offset, readable=False), str(error))


def tombstone_key(record: Record) -> bytes | None:
    """The record key that a tombstone tells, as far as it does."""
    for name, value in record.headers:
        if name == RetryHeader.KEY:
            return value
    return None
