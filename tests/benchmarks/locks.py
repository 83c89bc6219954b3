"""What a lock takes in memory: the table of one partition, filled and weighed."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator

from kafetrain.core.entry import Entry, decode_entry, encode_entry
from kafetrain.core.lock_table import LockTable
from kafetrain.testing import Broker
from tests.benchmarks.report import Block, Scale

__all__ = ["blocks"]

LOCKS = 200_000
NOW_MS = 1_800_000_000_000


def blocks(broker: Broker, scale: Scale) -> Iterator[Block]:
    """Needs no broker."""
    locks = scale.of(LOCKS)
    found = {each: bytes_per_lock(locks, each) for each in (1, 10)}
    yield Block(
        "Memory of a lock",
        f"{locks:,} locks restored from entries as the redirect topic holds them, keys of 17 B, errors not counted; "
        f"what Python allocates for the table, by lock.",
        ("locks of each key", "bytes a lock"),
        [(str(each), f"{size:.0f}") for each, size in found.items()],
        {f"{each} of each key": [size] for each, size in found.items()},
    )


def bytes_per_lock(locks: int, each: int) -> float:
    """`each`: how many records of a key wait."""
    gc.collect()
    tracemalloc.start()
    try:
        table = LockTable()
        source = table.source(0)
        for number in range(locks):
            entry = Entry(b"customer-%08d" % (number // each), attempt=1, due_ms=NOW_MS + number)
            source.put(number + 1_000, decode_entry(encode_entry(entry), number + 1_000))
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return size / locks
