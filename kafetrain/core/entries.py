"""Entries in memory: there may be a million of them, so each is one string of bytes, and an `Entry` for who looks."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from struct import Struct

from kafetrain.core.entry import Entry, PlainEntry, State

__all__ = ["Entries", "packed_plain"]


# Flags: what there is, and what is so.
_KEY, _FIRST_FAILURE, _ERROR_TYPE, _ERROR, _DEAD_AT = 1, 2, 4, 8, 16
_IS_DEAD, _IS_UNREADABLE, _IS_ATOMIC = 32, 64, 128
_OF_FAILED = _KEY | _FIRST_FAILURE | _ERROR_TYPE | _ERROR

_LOG_OFFSET = Struct("<q")
_HEAD = Struct("<qqIIIB")
"""Log offset, due, attempt, bytes of the key and of the error's type; flags. What is there of the rest follows."""
_FLAGS_AT = _HEAD.size - 1
_OF_KEY, _OF_KEY_AT = Struct("<I"), Struct("<qqI").size
_TIME, _PLACE = Struct("<q"), Struct("<qq")
_HEAD_AND_TIME = Struct(_HEAD.format + "q")


class Entries(MutableMapping[int, Entry]):
    """By source offset. What is taken out is a copy: to change an entry, put another one."""

    __slots__ = ("packed",)

    def __init__(self) -> None:
        self.packed: dict[int, bytes] = {}

    def __getitem__(self, offset: int) -> Entry:
        return _unpacked(self.packed[offset])

    def get(self, offset: int, default: Entry | None = None) -> Entry | None:  # type: ignore[override]  # of this type
        packed = self.packed.get(offset)
        return default if packed is None else _unpacked(packed)

    def __setitem__(self, offset: int, entry: Entry) -> None:
        self.packed[offset] = _pack(entry)

    def __delitem__(self, offset: int) -> None:
        del self.packed[offset]

    def __iter__(self) -> Iterator[int]:
        return iter(self.packed)

    def __len__(self) -> int:
        return len(self.packed)

    def __contains__(self, offset: object) -> bool:
        return offset in self.packed

    def has_pending(self, offset: int) -> bool:
        """False where there is no entry."""
        packed = self.packed.get(offset)
        return packed is not None and not packed[_FLAGS_AT] & _IS_DEAD

    # What follows raises `KeyError` where there is no entry.

    def is_pending(self, offset: int) -> bool:
        return not self.packed[offset][_FLAGS_AT] & _IS_DEAD

    def is_readable(self, offset: int) -> bool:
        return not self.packed[offset][_FLAGS_AT] & _IS_UNREADABLE

    def log_offset(self, offset: int) -> int:
        """Where the log holds the entry."""
        return int(_LOG_OFFSET.unpack_from(self.packed[offset])[0])

    def due_ms(self, offset: int) -> int:
        return int(_TIME.unpack_from(self.packed[offset], _LOG_OFFSET.size)[0])

    def key(self, offset: int) -> bytes | None:
        packed = self.packed[offset]
        flags = packed[_FLAGS_AT]
        if not flags & _KEY:
            return None
        at = _HEAD.size + _TIME.size * bool(flags & _FIRST_FAILURE) + _PLACE.size * bool(flags & _DEAD_AT)
        return packed[at : at + _OF_KEY.unpack_from(packed, _OF_KEY_AT)[0]]


def packed_plain(entry: PlainEntry, log_offset: int) -> bytes:
    """As `Entries` keep it, in a quarter of the time."""
    key, error_type, error, at = entry.key, entry.error_type, entry.error, entry.first_failure
    if key is not None:
        atomic = _IS_ATOMIC if entry.atomic else 0
        if error_type is not None and error is not None and at is not None:  # it has failed
            of_type, flags = error_type.encode(), _OF_FAILED | atomic
            head = _HEAD_AND_TIME.pack(log_offset, entry.due, entry.attempt, len(key), len(of_type), flags, at)
            return b"".join((head, key, of_type, error.encode()))
        if error_type is None and error is None and at is None:  # it waits behind one that has
            return _HEAD.pack(log_offset, entry.due, entry.attempt, len(key), 0, _KEY | atomic) + key
    return _pack(entry.entry(log_offset))


def _pack(entry: Entry) -> bytes:
    key = entry.key or b""
    error_type = _bytes(entry.error_type)
    flags = (
        _KEY * (entry.key is not None)
        | _FIRST_FAILURE * (entry.first_failure_ms is not None)
        | _ERROR_TYPE * (entry.error_type is not None)
        | _ERROR * (entry.error is not None)
        | _DEAD_AT * (entry.dead_at is not None)
        | _IS_DEAD * (entry.state is State.DEAD)
        | _IS_UNREADABLE * (not entry.readable)
        | _IS_ATOMIC * entry.atomic
    )
    head = _HEAD.pack(entry.log_offset, entry.due_ms, entry.attempt, len(key), len(error_type), flags)
    first_failure = b"" if entry.first_failure_ms is None else _TIME.pack(entry.first_failure_ms)
    dead_at = b"" if entry.dead_at is None else _PLACE.pack(*entry.dead_at)
    return b"".join((head, first_failure, dead_at, key, error_type, _bytes(entry.error)))


def _unpacked(packed: bytes) -> Entry:
    log_offset, due_ms, attempt, of_key, of_type, flags = _HEAD.unpack_from(packed)
    at, first_failure_ms, dead_at = _HEAD.size, None, None
    if flags & _FIRST_FAILURE:
        (first_failure_ms,) = _TIME.unpack_from(packed, at)
        at += _TIME.size
    if flags & _DEAD_AT:
        dead_at = _PLACE.unpack_from(packed, at)
        at += _PLACE.size
    type_at = at + of_key
    error_at = type_at + of_type
    return Entry(
        packed[at:type_at] if flags & _KEY else None,
        State.DEAD if flags & _IS_DEAD else State.PENDING,
        attempt,
        due_ms,
        first_failure_ms,
        packed[type_at:error_at].decode() if flags & _ERROR_TYPE else None,
        packed[error_at:].decode() if flags & _ERROR else None,
        dead_at,
        log_offset,
        not flags & _IS_UNREADABLE,
        bool(flags & _IS_ATOMIC),
    )


def _bytes(text: str | None) -> bytes:
    return b"" if text is None else text.encode("utf-8", "replace")
