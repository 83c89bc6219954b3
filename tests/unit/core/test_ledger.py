"""The offset ledger: the committed offset is the lowest incomplete one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kafetrain.core.ledger import Ledger, ranges_of


def test_nothing_is_committed_past_an_open_record() -> None:
    ledger = Ledger(10)
    ledger.begin_all([10, 11, 12])
    assert ledger.complete_range(11, 12) == 10
    assert ledger.complete(10) == 13


def test_gaps_between_offsets_are_passed() -> None:
    ledger = Ledger(0)
    ledger.begin_all([3, 7, 20])
    assert ledger.complete(3) == 7
    assert [ledger.complete(20), ledger.complete(7)] == [7, 21]


def test_completing_twice_changes_nothing() -> None:
    ledger = Ledger(0)
    ledger.begin_all([0, 1])
    assert ledger.complete(0) == 1
    assert ledger.complete(0) == 1
    assert ledger.open_count == 1


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 8)), max_size=20))
def test_ranges_complete_what_their_offsets_would(ranges: list[tuple[int, int]]) -> None:
    one_by_one, by_range = Ledger(0), Ledger(0)
    for ledger in (one_by_one, by_range):
        ledger.begin_all(range(50))
    for first, length in ranges:
        by_range.complete_range(first, first + length)
        for offset in range(first, first + length + 1):
            one_by_one.complete(offset)
        assert by_range.next_offset == one_by_one.next_offset
        assert by_range.open_count == one_by_one.open_count


@given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)))
def test_what_would_be_the_position_were_more_complete(complete: set[int], more: set[int]) -> None:
    """Asking changes nothing, and says what completing them does."""
    ledger = Ledger(0)
    ledger.begin_all(range(41))
    for offset in complete:
        ledger.complete(offset)
    before = (ledger.next_offset, ledger.open_count)
    expected = ledger.next_offset_with(more)
    assert (ledger.next_offset, ledger.open_count) == before
    for offset in more:
        ledger.complete(offset)
    assert ledger.next_offset == expected


def test_what_follows_the_last_record_is_passed_once_it_was_read() -> None:
    ledger = Ledger(0)
    ledger.begin_all([0, 1])
    ledger.begin_to(2)
    assert (ledger.next_offset, ledger.open_count) == (0, 2)
    ledger.begin_to(4)
    assert (ledger.complete_range(0, 1), ledger.open_count) == (4, 0)
    ledger.begin_to(3)
    assert ledger.next_offset == 4


def test_offsets_in_any_order_make_ranges() -> None:
    assert ranges_of([5, 3, 4, 9, 7, 8]) == [(3, 5), (7, 9)]
    assert ranges_of([]) == []


@given(st.sets(st.integers(0, 60), min_size=1), st.randoms(use_true_random=False))
def test_the_position_is_always_that_of_the_first_open_record(offsets: set[int], random: object) -> None:
    ordered = sorted(offsets)
    ledger = Ledger(0)
    ledger.begin_all(ordered)
    waiting = list(ordered)
    random.shuffle(waiting)  # type: ignore[attr-defined]
    still_open = set(ordered)
    for offset in waiting:
        position = ledger.complete(offset)
        still_open.discard(offset)
        assert all(other >= position for other in still_open)
        assert all(other < position for other in ordered if not still_open or other < min(still_open))
        assert ledger.open_count == len(still_open)
