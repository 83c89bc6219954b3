"""Fills lock tables from many records of the log at a time.

What it does with them is what `read_change` and the lock table say, one by one; it only does so faster, since a start
has to read a million of them. Nearly all say that an id is pending of which nothing was known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from kafetrain.core.entries import packed_plain
from kafetrain.core.entry import NOT_PLAIN, decode_plain
from kafetrain.core.lock_table import LockTable, SourceLocks
from kafetrain.core.redirect_log import tombstone_key
from kafetrain.record import Record, quote_group

__all__ = ["fill", "sources_by_name"]

MOST_DIGITS = 18
"""Of an offset that is taken as it stands: any number of so many is one that Kafka has."""


def sources_by_name(table: LockTable, group: str, topic: str) -> dict[bytes, SourceLocks]:
    """By what stands before the offset in the ids of each source partition."""
    return {f"{quote_group(group)}/{topic}/{partition}".encode(): locks for partition, locks in table.sources.items()}


def fill(sources: Mapping[bytes, SourceLocks], records: Iterable[Record], otherwise: Callable[[Record], None]) -> None:
    """Apply what is plain to `sources`, and have `otherwise` apply the rest; all in the order of the records."""
    last, decode = None, decode_plain
    for record in records:
        name, _, digits = (record.key or b"").rpartition(b"/")
        if name != last:
            if (found := sources.get(name)) is None:
                otherwise(record)
                continue
            last, locks = name, found
            packed, kept, ended = locks.entries.packed, locks.chains.kept, locks.ended
        if not digits.isdigit() or len(digits) > MOST_DIGITS:
            otherwise(record)
            continue
        offset, at, value = int(digits), record.offset, record.value
        if value is None:
            locks.end(offset, tombstone_key(record), at)
            continue
        try:
            plain = decode(value)
        except NOT_PLAIN:
            otherwise(record)
            continue
        entry = packed_plain(plain, at)
        if offset in ended or packed.setdefault(offset, entry) is not entry:
            locks.put(offset, plain.entry(at))
        elif kept.setdefault(key := offset if plain.key is None else plain.key, offset) is not offset:
            locks.lengthen(key, offset)
