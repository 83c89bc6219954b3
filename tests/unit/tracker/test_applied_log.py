"""What the reader does with records of the redirect topic: into which table they go, and who is told."""

from __future__ import annotations

from typing import Any

import pytest

from kafetrain.core.entry import Entry, Registration, encode_entry, encode_registration, registration_key
from kafetrain.errors import NewerFormatError
from kafetrain.record import MessageId
from kafetrain.tracker.applied_log import AppliedLog
from kafetrain.tracker.state import Side
from tests.unit.tracker.conftest import REDIRECT, Bench, record

NEWER = b'{"v":2}'


@pytest.fixture
def log(bench: Bench) -> AppliedLog:
    return AppliedLog(bench.state, "billing")


def logged(at: int, offset: int, value: bytes | None, group: str = "billing") -> Any:
    return record(at, str(MessageId(group, "orders", 0, offset)).encode(), value)


def lock(at: int, offset: int, key: bytes = b"k") -> Any:
    return logged(at, offset, encode_entry(Entry(key, attempt=1)))


def open_offsets(bench: Bench) -> list[int]:
    return sorted(bench.table.source(0).entries)


def test_locks_come_and_go(bench: Bench, log: AppliedLog) -> None:
    log.apply(REDIRECT, bench.table, [lock(0, 7), lock(1, 8), logged(2, 7, None)])
    assert open_offsets(bench) == [8]
    assert set(bench.table.source(0).ended) == {7}


def test_while_the_log_is_read_again_only_the_new_table_learns_of_it(bench: Bench, log: AppliedLog) -> None:
    log.apply(REDIRECT, bench.table, [lock(0, 7)])
    bench.table.rebuilt = rebuilt = bench.table.fresh()
    registration = Registration("orders", "id-1", 5, log_offset=9)
    told = [record(9, registration_key("billing"), encode_registration(registration)), lock(10, 8), logged(11, 9, b"?")]
    log.apply(REDIRECT, bench.table, told)
    assert open_offsets(bench) == [7]
    assert sorted(rebuilt.source(0).entries) == [8, 9]
    assert (bench.table.registrations, rebuilt.registrations) == ({}, {"billing": registration})


def test_whoever_listens_is_told_of_each_change(bench: Bench, log: AppliedLog) -> None:
    heard: list[tuple[Any, ...]] = []
    bench.state.listeners[REDIRECT] = lambda *change: heard.append(change)
    log.apply(REDIRECT, bench.table, [lock(0, 7), lock(1, 8, b"l"), logged(2, 7, None)])
    assert heard == [(0, b"k", 7), (0, b"l", 8), (0, b"k", 7)]
    assert open_offsets(bench) == [8]


@pytest.mark.parametrize("listens", [True, False])
def test_a_newer_format_among_many_stops_the_partition(bench: Bench, log: AppliedLog, listens: bool) -> None:
    if listens:
        bench.state.listeners[REDIRECT] = lambda *change: None
    bench.state.claim(Side.RETRY, bench.topic, [0])
    log.apply(REDIRECT, bench.table, [lock(0, 7), logged(1, 8, NEWER), lock(2, 9)])
    assert isinstance(bench.table.refused, NewerFormatError)
    assert "2" in str(bench.table.refused)
    assert [(claim.ready, claim.error) for claim in bench.state.all_claims()] == [(False, bench.table.refused)] * 2


def test_another_groups_newer_format_stops_nobody(bench: Bench, log: AppliedLog) -> None:
    log.apply(REDIRECT, bench.table, [logged(0, 8, NEWER, "others"), lock(1, 9)])
    assert bench.table.refused is None
    assert open_offsets(bench) == [9]


def test_damaged_records_are_counted_and_a_lock_is_one_whatever_its_value(bench: Bench, log: AppliedLog) -> None:
    log.apply(REDIRECT, bench.table, [record(0, b"?", b""), lock(1, 7), logged(2, 8, b"?"), record(3, None, None)])
    assert sum(bench.state.malformed.values()) == 3
    assert open_offsets(bench) == [7, 8]
    assert not bench.table.source(0).entries.is_readable(8)


def test_a_source_partition_that_nobody_asked_for_is_kept_as_well(bench: Bench, log: AppliedLog) -> None:
    elsewhere = record(0, b"billing/orders/3/5", encode_entry(Entry(b"k")))
    log.apply(REDIRECT, bench.table, [elsewhere, lock(1, 7)])
    assert list(bench.table.source(3).entries) == [5]
