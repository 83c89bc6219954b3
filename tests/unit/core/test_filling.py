"""A table filled from many records at a time is the table that they lead to one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from kafetrain.core.entry import Entry, State, encode_entry
from kafetrain.core.filling import fill, sources_by_name
from kafetrain.core.lock_table import LockTable
from kafetrain.core.redirect_log import Ended, NotAChange, Opened, read_change
from kafetrain.record import Headers, MessageId, Record, RetryHeader

GROUP, TOPIC = "a/group", "orders"


@dataclass(frozen=True)
class Logged:
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    topic: str = f"redirect-{TOPIC}"
    partition: int = 0
    timestamp: int = 0


ids = st.builds(
    lambda partition, offset: str(MessageId(GROUP, TOPIC, partition, offset)).encode(),
    st.integers(0, 1),
    st.integers(0, 5),
)
own = str(MessageId(GROUP, TOPIC, 0, 3)).encode()
odd_ids = st.sampled_from(
    [
        None,
        b"",
        b"/",
        b"a/group/orders/0/3",
        own + b"0000000000000000000000",
        own.replace(b"/3", b"/003"),
        own.replace(b"/3", b"/+3"),
        own.replace(b"/3", b"/9223372036854775808"),
        own.replace(b"/0/", b"/00/"),
        own.replace(b"/0/", b"/7/"),
        own.replace(b"orders", b"others"),
        own.replace(b"a%2F", b"b%2F"),
        own + b"\xff",
    ]
)
keys = st.sampled_from([None, b"", b"k", b"l"])
entries = st.builds(
    Entry,
    key=keys,
    state=st.sampled_from([State.PENDING, State.PENDING, State.DEAD]),
    attempt=st.integers(0, 3),
    due_ms=st.integers(0, 99),
    first_failure_ms=st.none() | st.integers(0, 99),
    error_type=st.sampled_from([None, "E"]),
    error=st.sampled_from([None, "é"]),
    atomic=st.booleans(),
)
values = st.none() | entries.map(encode_entry) | st.sampled_from([b"", b"garbage", b'{"v":0}'])
headers = st.sampled_from([(), ((RetryHeader.KEY, b"k"),), (("other", b"x"), (RetryHeader.KEY, b"l"))])
logged = st.tuples(ids | ids | ids | odd_ids, values, headers)
# What happens beside the log: our own writes, which it shows later, and what is learned of the source's offsets.
happenings = st.sampled_from(["own lock", "own end", "forget", "floor"])


def one_by_one(table: LockTable, record: Record) -> None:
    try:
        change = read_change(record, lambda id: (id.group, id.topic) == (GROUP, TOPIC))
    except NotAChange:
        return
    if isinstance(change, Ended):
        table.source(change.id.partition).end(change.id.offset, change.key, record.offset)
    elif isinstance(change, Opened):
        table.source(change.id.partition).put(change.id.offset, change.entry)


def many(table: LockTable, records: Sequence[Record]) -> list[Record]:
    """Returns what had to be looked at one by one."""
    left: list[Record] = []

    def otherwise(record: Record) -> None:
        left.append(record)
        one_by_one(table, record)

    fill(sources_by_name(table, GROUP, TOPIC), records, otherwise)
    return left


def happen(table: LockTable, kind: str, next_offset: int) -> None:
    locks = table.source(0)
    if kind == "own lock":
        locks.put(3, Entry(b"k", log_offset=next_offset + 1))
    elif kind == "own end":
        locks.end(3, b"k", next_offset + 1, ours=True)
    elif kind == "forget":
        locks.forget_below(3, next_offset)
    else:
        locks.set_floor(next_offset)


def contents(table: LockTable) -> Any:
    return {
        partition: (
            dict(locks.entries),
            locks.ended,
            {key: (list(chain.open), set(chain.ended)) for key, chain in locks.chains.items()},
        )
        for partition, locks in table.sources.items()
        if locks.entries or locks.ended or locks.chains
    }


@given(st.lists(st.tuples(st.lists(logged, max_size=8), happenings), max_size=6))
def test_many_at_a_time_lead_to_what_each_leads_to(batches: list[tuple[list[Any], str]]) -> None:
    single, filled, next_offset = LockTable(), LockTable(), 0
    single.source(0), filled.source(0)
    for batch, kind in batches:
        records = [Logged(next_offset + i, *fields) for i, fields in enumerate(batch)]
        next_offset += len(records)
        for record in records:
            one_by_one(single, record)
        many(filled, records)
        assert contents(filled) == contents(single)
        happen(single, kind, next_offset)
        happen(filled, kind, next_offset)
    assert contents(filled) == contents(single)


def test_new_locks_rewritten_ones_and_tombstones_need_no_closer_look() -> None:
    table = LockTable()
    table.source(0)
    entry = Entry(b"k", attempt=1, due_ms=5, first_failure_ms=4, error_type="E", error="no")
    told = [
        entry,
        structs.replace(entry, attempt=2),
        Entry(b"k"),
        structs.replace(entry, key=None),
        structs.replace(entry, atomic=True),
        None,
    ]
    records = [
        Logged(at, str(MessageId(GROUP, TOPIC, 0, at // 2)).encode(), None if one is None else encode_entry(one))
        for at, one in enumerate(told)
    ]
    assert many(table, records) == []
    assert table.source(0).entries == {
        0: structs.replace(entry, attempt=2, log_offset=1),
        1: structs.replace(entry, key=None, log_offset=3),
    }
    assert set(table.source(0).ended) == {2}


def test_what_needs_a_closer_look_gets_it_in_its_turn() -> None:
    """The dead letter between two entries of the same id: the last word is the last one's."""
    table = LockTable()
    table.source(0)
    name, entry = str(MessageId(GROUP, TOPIC, 0, 1)).encode(), Entry(b"k", attempt=1)
    told = [entry, entry.died((0, 9)), structs.replace(entry, attempt=3)]
    records = [Logged(at, name, encode_entry(one)) for at, one in enumerate(told)]
    assert many(table, records) == records[1:2]
    assert table.source(0).entries[1] == structs.replace(entry, attempt=3, log_offset=2)
