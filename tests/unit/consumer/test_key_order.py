"""Key-ordered work: one record of a key at a time, whichever thread is free, complete only when it is."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from kafetrain import Pause
from kafetrain.consumer.batches import Batch, Run
from kafetrain.consumer.delivery import hold_back
from kafetrain.consumer.key_order import SLICE_S, SourcePartition
from kafetrain.record import TopicPartition
from kafetrain.threads import Workers
from tests.waiting import wait_for


def record(offset: int, key: bytes | None) -> Any:
    return SimpleNamespace(topic="t", partition=0, offset=offset, key=key, value=b"v", headers=())


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def now_ms(self) -> int:
        return int(self.now * 1000)


class Bench:
    def __init__(self, threads: int) -> None:
        self.workers = Workers(threads, "test-worker")
        self.clock = Clock()
        self.fatal: list[BaseException] = []
        self.ran: list[int] = []
        self.handler: Callable[[Any], object] = lambda record: None
        self.part = SourcePartition(
            TopicPartition("t", 0), 0, "", self._run, self.workers, self.clock, self.fatal.append,
            whole_batches=threads == 1,
        )  # fmt: skip
        self.workers.start()

    def _run(self, record: Any) -> object:
        self.ran.append(record.offset)
        return self.handler(record)

    def dispatch(self, *keys: bytes | None, first: int = 0) -> None:
        self.part.dispatch([record(first + i, key) for i, key in enumerate(keys)])

    def committed(self) -> int:
        self.part.collect()
        return self.part.ledger.next_offset

    def wait_ran(self, *offsets: int) -> None:
        wait_for(f"{offsets} ran", lambda: self.ran == list(offsets))


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = Bench(request.param)
    yield bench
    bench.workers.request_stop()
    assert bench.workers.join(5.0)


@pytest.fixture(params=[3])
def wide(request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = Bench(request.param)
    yield bench
    bench.workers.request_stop()
    assert bench.workers.join(5.0)


def test_records_of_a_key_run_in_order_and_all_complete(bench: Bench) -> None:
    bench.dispatch(*[b"k"] * 50)
    bench.dispatch(*[b"k"] * 50, first=50)
    wait_for("all are complete", lambda: bench.committed() == 100)
    assert bench.ran == list(range(100))


def test_a_slow_key_delays_no_other_key(wide: Bench) -> None:
    slow = threading.Event()
    wide.handler = lambda record: slow.wait(10) if record.key == b"slow" else None
    wide.dispatch(b"slow", b"a", b"slow", b"b", b"a")
    wait_for("the other keys have run", lambda: {1, 3, 4} <= set(wide.ran))
    assert 2 not in wide.ran
    assert wide.committed() == 0
    slow.set()
    wait_for("all are complete", lambda: wide.committed() == 5)


@pytest.mark.parametrize("wide", [2], indirect=True)
def test_a_key_with_much_to_do_takes_turns_with_others(wide: Bench) -> None:
    """One thread is taken for long; the other one has to do all else."""
    slow = threading.Event()

    def handler(record: Any) -> None:
        if record.key == b"slow":
            assert slow.wait(10)
        wide.clock.now += SLICE_S

    wide.handler = handler
    wide.dispatch(b"slow", *[b"busy"] * 5, b"rare", b"busy")
    wait_for("the others have run", lambda: len(wide.ran) == 8)
    slow.set()
    assert wide.ran == [0, 1, 6, 2, 3, 4, 5, 7]
    wait_for("all are complete", lambda: wide.committed() == 8)


def test_a_key_whose_record_waits_for_a_future_stands_still_and_others_go_on(bench: Bench) -> None:
    redirect: Future[None] = Future()
    bench.handler = lambda record: redirect if record.offset == 0 else None
    bench.dispatch(b"k", b"other", b"k")
    wait_for("the other key has run", lambda: 1 in bench.ran)
    assert bench.ran == [0, 1]
    assert bench.committed() == 0
    assert not bench.part.idle
    bench.dispatch(b"k", first=3)
    redirect.set_result(None)
    wait_for("all are complete", lambda: bench.committed() == 4)
    assert bench.ran == [0, 1, 2, 3]


def test_a_middleware_may_hold_a_record_back(bench: Bench) -> None:
    redirect: Future[None] = Future()

    def handler(record: Any) -> None:
        if record.offset == 0:
            hold_back(redirect)

    bench.handler = handler
    bench.dispatch(b"k", b"k")
    bench.wait_ran(0)
    wait_for("its thread is free", lambda: bench.committed() == 0 and not bench.part.idle)
    redirect.set_result(None)
    wait_for("both are complete", lambda: bench.committed() == 2)


def test_a_record_that_is_held_back_may_let_its_key_go_on(bench: Bench) -> None:
    redirect: Future[None] = Future()

    def handler(record: Any) -> None:
        if record.offset == 0:
            hold_back(redirect, key_waits=False)

    bench.handler = handler
    bench.dispatch(b"k", b"k", b"other")
    wait_for("the others have run", lambda: len(bench.ran) == 3)
    assert bench.ran.index(0) < bench.ran.index(1)
    assert bench.committed() == 0
    assert not bench.part.idle
    redirect.set_result(None)
    wait_for("all are complete", lambda: bench.committed() == 3)
    wait_for("nothing is under way", lambda: bench.part.idle)


def test_records_without_a_key_do_not_wait_for_each_other(wide: Bench) -> None:
    first = threading.Event()
    wide.handler = lambda record: first.wait(10) if record.offset == 0 else None
    wide.dispatch(None, None)
    wait_for("the second has run", lambda: 1 in wide.ran)
    first.set()
    wait_for("both are complete", lambda: wide.committed() == 2)


def test_an_error_ends_everything_and_completes_nothing_more(bench: Bench) -> None:
    def handler(record: Any) -> None:
        if record.offset == 1:
            raise ValueError("no")

    bench.handler = handler
    bench.dispatch(b"k", b"k", b"k")
    wait_for("the error arrived", lambda: bench.fatal)
    wait_for("nothing runs", lambda: bench.part.idle)
    assert isinstance(bench.fatal[0], ValueError)
    assert bench.committed() == 1
    assert bench.ran == [0, 1]


def test_a_pause_runs_the_same_record_again_in_place_and_the_partition_waits(bench: Bench) -> None:
    paused: list[int] = []

    def handler(record: Any) -> None:
        if record.offset == 1 and not paused:
            paused.append(1)
            raise Pause(timedelta(seconds=30))

    bench.handler = handler
    bench.dispatch(b"k", b"k", b"k")
    wait_for("it is paused", lambda: bool(paused) and bench.part.idle)
    bench.dispatch(b"late", first=3)
    assert bench.part.paused
    assert bench.committed() == 1
    bench.clock.now = 31.0
    assert not bench.part.paused
    wait_for("all are complete", lambda: bench.committed() == 4)
    assert [offset for offset in bench.ran if offset < 3] == [0, 1, 1, 2]
    assert bench.ran.index(3) > 1


def test_a_partition_that_leaves_starts_nothing_new(bench: Bench) -> None:
    running, finish = threading.Event(), threading.Event()

    def handler(record: Any) -> None:
        running.set()
        finish.wait(10)

    bench.handler = handler
    bench.dispatch(b"k", b"k")
    assert running.wait(10)
    bench.part.leave()
    bench.dispatch(b"new", first=2)
    assert not bench.part.idle
    finish.set()
    wait_for("nothing runs", lambda: bench.part.idle)
    assert bench.ran == [0]
    assert bench.committed() == 1


def test_leaving_calls_off_what_has_not_begun(bench: Bench) -> None:
    future: Future[None] = Future()
    bench.handler = lambda record: future
    bench.dispatch(b"k")
    wait_for("it waits for its future", lambda: bench.ran == [0] and not bench.part.idle)
    bench.part.leave()
    assert future.cancelled()
    wait_for("nothing is under way", lambda: bench.part.idle)
    assert bench.committed() == 0
    assert bench.fatal == []


def test_a_future_cancelled_by_somebody_else_stops_the_consumer_with_a_word(bench: Bench) -> None:
    future: Future[None] = Future()
    bench.handler = lambda record: future
    bench.dispatch(b"k")
    wait_for("it waits for its future", lambda: bench.ran == [0])
    future.cancel()
    wait_for("the error arrived", lambda: bench.fatal)
    assert "t[0]@0" in str(bench.fatal[0])


def test_a_run_that_begins_while_the_others_are_collected_is_collected_with_the_next(bench: Bench) -> None:
    class Contended(deque[Any]):
        """A worker begins a run at each look at what is there."""

        def __iter__(self) -> Iterator[Any]:
            for run in super().__iter__():
                self.append(Run(Batch([record(9, b"k")]), 0))
                yield run

    hold: Future[None] = Future()
    bench.handler = lambda record: hold if record.offset == 0 else None
    bench.part._runs = Contended()
    bench.dispatch(b"a", b"b", b"c")
    wait_for("all but the first are through", lambda: sorted(bench.ran) == [0, 1, 2])
    assert bench.committed() == 0
    hold.set_result(None)
    wait_for("all are complete", lambda: bench.committed() == 3)


def test_open_bytes_follow_the_committed_position(bench: Bench) -> None:
    hold: Future[None] = Future()
    bench.handler = lambda record: hold if record.offset == 0 else None
    bench.dispatch(b"k", b"other")
    wait_for("the other has run", lambda: bench.ran == [0, 1])
    bench.part.collect()
    assert bench.part.open_bytes == 2 * len(b"v") + len(b"k") + len(b"other")
    hold.set_result(None)
    wait_for("both are complete", lambda: bench.committed() == 2)
    assert bench.part.open_bytes == 0


def test_a_pause_that_is_over_before_the_next_batch_had_its_turn_keeps_the_order(bench: Bench) -> None:
    gate, paused = threading.Event(), threading.Event()

    def handle(one: Any) -> None:
        if one.offset == 0 and not paused.is_set():
            paused.set()
            raise Pause(timedelta(seconds=1))

    def busy() -> None:
        gate.wait(60)

    bench.handler = handle
    bench.dispatch(b"a", b"a")
    bench.workers.submit(busy)
    bench.dispatch(b"a", first=2)
    assert paused.wait(60)
    wait_for("it is paused", lambda: bench.part.paused)
    bench.clock.now += 2
    assert not bench.part.paused
    gate.set()
    bench.wait_ran(0, 0, 1, 2)
    wait_for("all are complete", lambda: bench.committed() == 3)
