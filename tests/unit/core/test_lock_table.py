"""The lock table: the last word of the log wins, our own acknowledged writes shadow what is older."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from kafetrain.core import lock_table
from kafetrain.core.chain import chain_key
from kafetrain.core.entry import Entry, State
from kafetrain.core.lock_table import LockTable, SourceLocks


def pending(key: bytes | None, at: int, **changed: object) -> Entry:
    return structs.replace(Entry(key, log_offset=at), **changed)


def test_a_chain_is_in_source_order_whatever_the_order_in_the_log() -> None:
    locks = SourceLocks()
    for at, offset in enumerate([5, 2, 9, 7]):
        locks.put(offset, pending(b"k", at))
    assert list(locks.chains[b"k"].open) == [2, 5, 7, 9]


def test_records_without_a_key_are_chains_of_their_own() -> None:
    locks = SourceLocks()
    locks.put(1, pending(None, 0))
    locks.put(2, pending(None, 1))
    assert {key: list(chain.open) for key, chain in locks.chains.items()} == {1: [1], 2: [2]}


def test_a_later_tombstone_ends_and_an_earlier_one_does_not() -> None:
    locks = SourceLocks()
    locks.put(1, pending(b"k", 10))
    assert locks.end(1, b"k", 9) is None
    assert 1 in locks.entries
    assert locks.end(1, b"k", 11) is not None
    assert locks.entries == {}


def test_our_own_tombstone_shadows_the_older_entry_that_the_log_shows_later() -> None:
    locks = SourceLocks()
    locks.committed = 100  # below it, ended ids of the log are not remembered; our own are until the log shows them
    locks.end(1, b"k", 20, ours=True)
    assert locks.put(1, pending(b"k", 12)) is None
    assert locks.entries == {}
    locks.forget_below(100, read_to=15)
    assert locks.put(1, pending(b"k", 13)) is None
    locks.forget_below(100, read_to=21)
    assert locks.ended == {}
    assert locks.chains == {}


def test_an_id_locked_again_after_its_end_is_open() -> None:
    locks = SourceLocks()
    locks.end(1, b"k", 5)
    locks.put(1, pending(b"k", 6))
    assert list(locks.chains[b"k"].open) == [1]
    assert locks.ended == {}


def test_ended_ids_are_remembered_only_where_they_may_be_delivered_again() -> None:
    locks = SourceLocks()
    locks.committed = 5
    locks.end(4, b"k", 1)
    locks.end(5, b"k", 2)
    assert set(locks.ended) == {5}


def test_the_floor_takes_the_proof_from_what_is_below_it() -> None:
    locks = SourceLocks()
    locks.end(3, b"k", 10)
    locks.put(7, pending(b"k", 20))
    chain = locks.chains[b"k"]
    assert locks.later_id_known(chain, 5)
    locks.set_floor(30)
    assert locks.ended == {}
    assert not locks.later_id_known(chain, 5)
    assert 7 in locks.entries  # a lock that is pending at a rewind stays


def test_an_unreadable_entry_is_repaired_by_its_retry_record() -> None:
    locks = SourceLocks()
    locks.put(4, Entry(None, log_offset=1, readable=False))
    repaired = locks.repair(4, b"k", attempt=2, due_ms=77)
    assert repaired is not None
    assert (repaired.key, list(repaired.open)) == (b"k", [4])
    entry = locks.entries[4]
    assert (entry.key, entry.attempt, entry.due_ms, entry.readable) == (b"k", 2, 77, True)
    assert set(locks.chains) == {b"k"}


def test_an_unreadable_rewrite_keeps_what_is_known() -> None:
    locks = SourceLocks()
    locks.put(4, pending(b"k", 1, attempt=3))
    locks.put(4, Entry(None, log_offset=2, readable=False))
    assert (locks.entries[4].key, locks.entries[4].attempt, locks.entries[4].log_offset) == (b"k", 3, 2)


def test_the_oldest_needed_offset_is_that_of_the_oldest_lock_or_remembered_tombstone() -> None:
    table = LockTable(next_offset=50)
    assert _oldest_needed(table) == 50
    table.source(0).put(1, pending(b"a", 30))
    table.source(3).end(9, b"b", 20)
    assert _oldest_needed(table) == 20
    table.source(3).forget_below(10, read_to=50)
    assert _oldest_needed(table) == 30


def test_the_oldest_needed_offset_holds_whatever_changes_while_it_is_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lock_table, "LOOK_AT", 2)
    table = LockTable(next_offset=50)
    locks = table.source(0)
    for offset in range(6):
        locks.put(offset, pending(b"k", 30 + offset))
    search = table.oldest_needed()
    assert next(search) == 30
    locks.end(3, b"k", 50)
    locks.put(4, pending(b"k", 51))
    locks.put(6, pending(b"k", 52))
    assert [*search][-1] == 30
    assert _oldest_needed(table) == 30
    locks.end(0, b"k", 53)
    assert _oldest_needed(table) == 31


def _oldest_needed(table: LockTable) -> int:
    *_, needed = table.oldest_needed()
    return needed


def test_a_rebuilt_table_replaces_what_was_known_and_keeps_the_parts_that_others_hold() -> None:
    table = LockTable()
    locks = table.source(0)
    locks.set_floor(2)
    locks.put(1, pending(b"k", 3))
    rebuilt = table.fresh()
    assert rebuilt.source(0).floor == 2
    assert locks.entries  # until it has been read to its end, the old one stays
    rebuilt.source(0).put(9, pending(b"new", 8))
    rebuilt.next_offset = 9
    table.adopt(rebuilt)
    assert table.source(0) is locks
    assert (set(locks.entries), set(locks.chains), table.next_offset) == ({9}, {b"new"}, 9)


@pytest.mark.parametrize("state", list(State))
def test_dead_and_pending_ids_are_both_open(state: State) -> None:
    locks = SourceLocks()
    locks.put(1, pending(b"k", 1, state=state))
    assert list(locks.chains[b"k"].open) == [1]


writes = st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["pending", "dead", "end"])), min_size=1, max_size=25)


@given(writes, st.data())
def test_applying_any_part_of_the_log_twice_or_late_changes_nothing(
    log: list[tuple[int, str]], data: st.DataObject
) -> None:
    """State is a set of ids: repeated and late deliveries of log records leave what the log says."""
    once, often = SourceLocks(), SourceLocks()

    def apply(locks: SourceLocks, at: int) -> None:
        offset, kind = log[at]
        if kind == "end":
            locks.end(offset, b"k%d" % (offset % 2), at, ours=True)
        else:
            locks.put(offset, pending(b"k%d" % (offset % 2), at, state=State(kind)))

    for at in range(len(log)):
        apply(once, at)
        apply(often, at)
        for again in data.draw(st.lists(st.integers(0, at), max_size=3)):
            apply(often, again)
    assert often.entries == once.entries
    assert often.ended == once.ended
    assert {k: (list(c.open), c.ended) for k, c in often.chains.items()} == {
        k: (list(c.open), c.ended) for k, c in once.chains.items()
    }
    for offset, entry in once.entries.items():
        assert offset in once.chains[chain_key(entry.key, offset)].open
