"""The retry schedule: heads by due time, bounded payloads, nothing searched and nothing slept on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from msgspec import structs

from kafetrain.core.entry import Entry, State
from kafetrain.core.lock_table import LockTable
from kafetrain.core.schedule import FETCH_AHEAD_MS, Held, RetrySchedule


class Bench:
    """A table and its schedule, wired as the tracker does it."""

    def __init__(self, max_records: int = 100, free_dead: bool = False) -> None:
        self.table = LockTable()
        self.schedule = RetrySchedule(self.table, max_records=max_records, max_bytes=1 << 20, free_dead=free_dead)
        self.at = 0

    def put(self, offset: int, key: bytes = b"k", due_ms: int = 0, state: State = State.PENDING) -> None:
        self.at += 1
        chain = self.table.source(0).put(offset, Entry(key, state=state, due_ms=due_ms, log_offset=self.at))
        if chain is not None:
            self.schedule.touch(0, chain.key, offset)

    def end(self, offset: int, key: bytes = b"k") -> None:
        self.at += 1
        chain = self.table.source(0).end(offset, key, self.at)
        if chain is not None:
            self.schedule.touch(0, chain.key, offset)

    def hold(self, offset: int, key: bytes = b"k", size: int = 10) -> bool:
        record: Any = SimpleNamespace(offset=offset)
        held = self.schedule.hold(Held((0, offset), offset + 1000, record, size))
        self.schedule.touch(0, key)
        return held

    def hold_alone(self, offset: int, due_ms: int) -> None:
        """The lock and the record of a key of its own."""
        self.put(offset, b"k%d" % offset, due_ms)
        self.hold(offset, b"k%d" % offset)

    def due(self, now_ms: int) -> list[int]:
        return [held.place[1] for held in self.schedule.pop_due(now_ms)]

    def finish(self, offset: int, key: bytes = b"k") -> None:
        """As a success does: the tombstone first, then the record is dropped."""
        self.end(offset, key)
        self.schedule.drop(self.held(offset))

    def held(self, offset: int) -> Held:
        held = self.schedule.get((0, offset))
        assert held is not None
        return held


def test_only_the_head_runs_and_the_next_follows_its_end() -> None:
    bench = Bench()
    for offset in (1, 2, 3):
        bench.put(offset)
        bench.hold(offset)
    assert bench.due(0) == [1]
    assert bench.due(0) == []  # it runs
    bench.finish(1)
    assert bench.due(0) == [2]


def test_a_head_waits_until_it_is_due_and_delays_no_other_key() -> None:
    bench = Bench()
    bench.put(1, b"slow", due_ms=3_600_000)
    bench.hold(1, b"slow")
    bench.put(2, b"quick", due_ms=10)
    bench.hold(2, b"quick")
    assert bench.schedule.next_wake_ms() == 10
    assert bench.due(10) == [2]
    assert bench.due(3_599_999) == []
    assert bench.due(3_600_000) == [1]


def test_a_head_whose_record_was_not_read_yet_blocks_its_chain_only() -> None:
    bench = Bench()
    bench.put(1)
    bench.put(2)
    bench.hold(2)
    assert bench.due(0) == []
    bench.hold(1)
    assert bench.due(0) == [1]


def test_a_second_copy_is_refused() -> None:
    bench = Bench()
    bench.put(1)
    assert bench.hold(1)
    assert not bench.hold(1)


def test_a_rewritten_due_time_counts() -> None:
    bench = Bench()
    bench.put(1, due_ms=10)
    bench.hold(1)
    bench.put(1, due_ms=500)
    assert bench.due(100) == []
    assert bench.due(500) == [1]


def test_what_ended_elsewhere_is_complete() -> None:
    bench = Bench()
    bench.put(1)
    bench.hold(1)
    bench.end(1)
    assert [held.place for held in bench.schedule.ended] == [(0, 1)]
    assert bench.schedule.held_count == 0
    assert bench.due(0) == []


def test_what_a_rebuilt_table_does_not_know_any_more_has_ended() -> None:
    bench = Bench()
    for offset, key in ((1, b"gone"), (2, b"stays"), (3, b"runs")):
        bench.put(offset, key)
        bench.hold(offset, key)
    bench.held(3).busy = True
    rebuilt = bench.table.fresh()
    rebuilt.source(0).put(2, Entry(b"stays", log_offset=50))
    bench.table.adopt(rebuilt)
    bench.schedule.touch_all()
    assert [held.place for held in bench.schedule.ended] == [(0, 1)]
    assert bench.held(3).busy  # what runs is decided by its outcome
    assert bench.schedule.held_count == 2
    assert bench.due(0) == [2]


def test_followers_of_a_dead_head_are_parked_one_after_the_other() -> None:
    bench = Bench()
    for offset in (1, 2, 3):
        bench.put(offset)
        bench.hold(offset)
    bench.put(1, state=State.DEAD)
    assert [held.place[1] for held in bench.schedule.to_park] == [2]
    bench.schedule.to_park.clear()
    bench.finish(2)
    assert [held.place[1] for held in bench.schedule.to_park] == [3]
    assert bench.due(0) == []


def test_dead_heads_are_released_where_keys_are_freed() -> None:
    bench = Bench(free_dead=True)
    bench.put(1, state=State.DEAD)
    bench.put(2)
    bench.hold(2)
    assert list(bench.schedule.to_release) == [(0, 1)]
    bench.end(1)
    assert bench.due(0) == [2]


def test_beyond_the_bound_payloads_are_dropped_and_fetched_again_when_due() -> None:
    bench = Bench(max_records=10)
    hour = 3_600_000
    for offset in range(12):
        bench.hold_alone(offset, due_ms=hour)
    assert bench.schedule.full
    bench.schedule.shed(now_ms=0)
    assert bench.schedule.below_half
    assert bench.schedule.held_count == 12
    assert bench.due(hour - FETCH_AHEAD_MS - 1) == []
    assert bench.due(hour - FETCH_AHEAD_MS) == []
    ran: list[int] = []
    while bench.schedule.wants:
        for held in bench.schedule.wanted().values():
            bench.schedule.load(held, SimpleNamespace(offset=held.at), 10)
        assert bench.schedule.loaded_records <= 10
        ran += (due := bench.due(hour))
        for offset in due:
            bench.finish(offset, b"k%d" % offset)
    assert sorted(ran) == list(range(12))


def test_nothing_is_fetched_again_until_there_is_room_for_a_quarter_of_the_bound() -> None:
    bench = Bench(max_records=8)
    for offset in range(16):
        bench.hold_alone(offset, due_ms=50_000)
        bench.schedule.shed(now_ms=0)
    bench.due(50_000 - FETCH_AHEAD_MS)
    first = bench.schedule.wanted()
    assert len(first) == 8 - bench.schedule.loaded_records
    for held in first.values():
        bench.schedule.load(held, SimpleNamespace(offset=held.at), 10)
    running = bench.due(50_000)
    assert (len(running), bench.schedule.wants) == (8, False)
    bench.finish(running[0], b"k%d" % running[0])
    assert not bench.schedule.wants
    bench.finish(running[1], b"k%d" % running[1])
    assert bench.schedule.wants
    assert len(bench.schedule.wanted()) == 2


def test_what_waits_makes_room_for_what_is_due() -> None:
    """Below the bound, and too full to fetch anything: nothing that waits for long may keep a key from its turn."""
    bench = Bench(max_records=8)
    for offset in range(16):
        bench.hold_alone(offset, due_ms=50_000)
        bench.schedule.shed(now_ms=0)
    while bench.schedule.loaded_records < 7:
        offset += 1
        bench.hold_alone(offset, due_ms=3_600_000)
    bench.due(50_000 - FETCH_AHEAD_MS)
    assert not bench.schedule.full
    assert bench.schedule.crowded
    bench.schedule.shed(now_ms=50_000)
    assert bench.schedule.wants


def test_what_is_due_keeps_its_payload() -> None:
    bench = Bench(max_records=4)
    for offset in range(4):
        bench.hold_alone(offset, due_ms=0)
    bench.schedule.shed(now_ms=0)
    assert bench.schedule.full
    assert sorted(bench.due(0)) == [0, 1, 2, 3]


def test_followers_are_fetched_again_together_with_their_head() -> None:
    bench = Bench(max_records=10)
    for offset in range(10):
        bench.put(offset, due_ms=50_000)
        bench.hold(offset)
    bench.schedule.shed(now_ms=0)
    assert bench.schedule.loaded_records == 4
    assert bench.due(50_000) == []
    assert sorted(bench.schedule.wanted()) == [1000, 1001, 1002, 1003, 1004, 1005]


def _shed(offsets: range) -> Bench:
    """One chain, of which nothing is in memory but the places."""
    bench = Bench(max_records=2)
    for offset in offsets:
        bench.put(offset, due_ms=50_000)
        bench.hold(offset)
    bench.schedule.shed(now_ms=0)
    assert bench.schedule.loaded_records == bench.schedule.loaded_bytes == 0
    return bench


def test_followers_whose_payloads_were_dropped_are_held_all_the_same() -> None:
    bench = _shed(range(4))
    assert bench.schedule.held_count == 4
    assert all(bench.schedule.holds((0, offset)) for offset in range(4))
    assert not bench.hold(3)  # a second copy
    held = bench.schedule.get((0, 3))
    assert held is not None
    assert (held.at, held.record) == (1003, None)
    assert bench.schedule.get((0, 3)) is held
    assert bench.schedule.held_count == 4
    assert bench.schedule.get((0, 4)) is bench.schedule.get((1, 3)) is None


def test_a_follower_whose_payload_was_dropped_runs_in_its_turn() -> None:
    bench = _shed(range(200))
    ran: list[int] = []
    while len(ran) < 200:
        ran += (due := bench.due(50_000))
        for held in list(bench.schedule.wanted().values()):
            bench.schedule.load(held, SimpleNamespace(offset=held.at), 10)
        bench.schedule.shed(50_000)  # what was fetched along with its head goes again, and comes again
        for offset in due:
            bench.finish(offset)
    assert ran == list(range(200))
    assert bench.schedule.held_count == bench.schedule.loaded_bytes == 0


def test_a_follower_whose_payload_was_dropped_may_end_elsewhere() -> None:
    bench = _shed(range(4))
    bench.end(2)
    assert [(held.place, held.at) for held in bench.schedule.ended] == [((0, 2), 1002)]
    rebuilt = bench.table.fresh()
    rebuilt.source(0).put(1, Entry(b"k", log_offset=50))
    bench.table.adopt(rebuilt)
    bench.schedule.touch_all()
    assert sorted(held.at for held in bench.schedule.ended) == [1000, 1002, 1003]
    assert bench.schedule.held_count == 1


def test_an_entry_is_a_value() -> None:
    entry = Entry(b"k")
    failed = entry.failed(due_ms=5, now_ms=1, error_type="E", error="e")
    assert entry == Entry(b"k")
    assert structs.replace(failed, log_offset=9) != failed
