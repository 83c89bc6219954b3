"""What a lock takes: in memory, the table of one partition, filled and weighed; in the topics, record by record."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator

from msgspec import structs

from kafetrain.core.entry import Entry, encode_entry
from kafetrain.core.headers import retry_headers, tombstone_headers
from kafetrain.core.lock_table import LockTable
from kafetrain.record import Headers, MessageId
from kafetrain.testing import Broker
from tests.benchmarks.report import Block, Scale

__all__ = ["blocks"]

LOCKS = 250_000
NOW_MS = 1_800_000_000_000


def blocks(broker: Broker, scale: Scale) -> Iterator[Block]:
    """Needs no broker."""
    locks = scale.of(LOCKS)
    found = {each: bytes_per_lock(locks, each) for each in (1, 10)}
    yield Block(
        "Memory of a lock",
        f"{locks:,} locks with keys of 17 B, errors not counted, the first of each key having failed; "
        f"what Python allocates for the table, by lock.",
        ("locks of each key", "bytes a lock"),
        [(str(each), f"{size:.0f}") for each, size in found.items()],
        {f"{each} of each key": [size] for each, size in found.items()},
    )
    written = sizes()
    yield Block(
        "What a redirect writes",
        "Bytes of keys, values and headers, without what Kafka itself adds to a record and before compression: of a "
        "record with a key of 17 B that fails once and succeeds then, in a topic `orders` of a group `billing`.",
        ("record", "bytes"),
        [(name, str(size)) for name, size in written.items()],
        {name: [size] for name, size in written.items()},
    )


def sizes() -> dict[str, int]:
    id = MessageId("billing", "orders", 11, 123_456_789)
    entry = Entry(
        b"customer-%08d" % 1,
        attempt=1,
        due_ms=NOW_MS,
        first_failure_ms=NOW_MS,
        error_type="TimeoutError",
        error="the payment service does not answer",
    )
    added = retry_headers(id, (), timestamp_ms=NOW_MS, entry=entry, max_retries=5, lock_offset=123_456_789)
    return {
        "lock": len(str(id)) + len(encode_entry(entry)),
        "retry record, besides the record itself": _size(added),
        "tombstone": len(str(id)) + _size(tombstone_headers(entry.key)),
    }


def _size(headers: Headers) -> int:
    return sum(len(name) + len(value or b"") for name, value in headers)


def bytes_per_lock(locks: int, each: int) -> float:
    """`each`: how many records of a key wait."""
    gc.collect()
    tracemalloc.start()
    try:
        table = LockTable()
        source = table.source(0)
        for number in range(locks):
            entry = Entry(b"customer-%08d" % (number // each), due_ms=NOW_MS + number)
            if number % each == 0:  # the one that has failed
                entry = structs.replace(entry, attempt=1, first_failure_ms=NOW_MS)
            source.put(number + 1_000, structs.replace(entry, log_offset=number + 1_000))
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return size / locks
