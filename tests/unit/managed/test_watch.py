"""What the watch around a handler sees, and the port that fetches no more while one is slow."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Future
from datetime import timedelta
from typing import Any

import pytest

from kafetrain import Pause, Record
from kafetrain.managed.paced import PacedConsumer
from kafetrain.managed.watch import HandlerWatch
from kafetrain.record import TopicPartition
from tests.unit.fakes import FakeClock
from tests.unit.records import record

PLACE = TopicPartition("orders", 0)


class Successes:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def watch(clock: FakeClock | None = None, **options: Any) -> tuple[HandlerWatch, Successes]:
    successes = Successes()
    return HandlerWatch(0.1, clock or FakeClock(), successes, **options), successes


def test_only_a_record_further_than_any_before_is_a_success() -> None:
    watched, successes = watch()
    for offset in (0, 1, 1, 0, 2):
        watched(record(offset=offset), lambda _: None)
    assert successes.count == 3


def test_a_handler_is_overdue_until_it_ends_and_one_with_a_future_until_that_is_done() -> None:
    clock = FakeClock()
    watched, successes = watch(clock)
    future: Future[None] = Future()

    def slow(_: Record) -> None:
        assert watched.overdue() == frozenset()
        clock.wait(0.2)
        assert watched.overdue() == {PLACE}

    watched(record(offset=0), slow)
    assert watched.overdue() == frozenset()
    later = record(offset=1)
    assert watched(later, lambda _: future) is future
    clock.wait(0.2)
    assert watched.overdue() == {PLACE}
    future.set_result(None)
    assert watched.overdue() == frozenset()
    assert successes.count == 2


def test_a_failure_passes_through_and_is_no_success() -> None:
    watched, successes = watch()

    def fail(_: Record) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        watched(record(), fail)
    failed: Future[None] = Future()
    watched(record(offset=1), lambda _: failed)
    failed.set_exception(ValueError())
    assert (successes.count, watched.overdue(), watched.failure) == (0, frozenset(), None)


def test_where_failures_are_kept_the_record_counts_as_handled_and_a_pause_does_not() -> None:
    watched, successes = watch(keep_failures=True)
    errors = [ValueError("at once"), ValueError("later")]

    def fail(_: Record) -> None:
        raise errors[0]

    def pause(_: Record) -> None:
        raise Pause(timedelta(0))

    assert watched(record(), fail) is None
    assert watched.failure is errors[0]
    later: Future[None] = Future()
    kept = watched(record(offset=1), lambda _: later)
    later.set_exception(errors[1])
    assert isinstance(kept, Future)
    assert kept.result(0) is None
    assert watched.failure is errors[1]
    with pytest.raises(Pause):
        watched(record(offset=2), pause)
    assert successes.count == 0


class Port:
    """What was paused and resumed, and what is now."""

    def __init__(self) -> None:
        self.paused: set[TopicPartition] = {PLACE}
        self.events: Any = None

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self.paused |= set(partitions)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        self.paused -= set(partitions)

    def poll(self, timeout: timedelta, max_records: int) -> dict[TopicPartition, Any]:
        return {}

    def subscribe(self, topics: Collection[str], events: Any) -> None:
        self.events = events


class Events:
    def assigned(self, partitions: frozenset[TopicPartition]) -> None: ...
    def lost(self, partitions: frozenset[TopicPartition]) -> None: ...
    def revoking(self, partitions: frozenset[TopicPartition]) -> Any:
        return dict


class Bench:
    def __init__(self) -> None:
        self.port, self.slow, self.clock = Port(), set[TopicPartition](), FakeClock()
        self.paced = PacedConsumer(self.port, lambda: frozenset(self.slow), self.clock)  # type: ignore[arg-type]  # as much of a port as is used
        self.paced.subscribe(["orders"], Events())

    def poll(self) -> None:
        self.paced.poll(timedelta(0))


def test_a_slow_partition_is_paused_until_its_handler_ends_beside_the_pauses_of_the_loop() -> None:
    bench = Bench()
    bench.slow = {PLACE}
    bench.poll()
    assert bench.port.paused == {PLACE}, "the loop has not begun with it"
    bench.slow = set()
    bench.poll()
    assert bench.port.paused == {PLACE}, "and it is not ours to resume"
    bench.paced.resume([PLACE])
    assert bench.port.paused == set()
    bench.slow = {PLACE}
    bench.poll()
    assert bench.port.paused == {PLACE}
    bench.slow = set()
    bench.poll()
    assert bench.port.paused == set()
    bench.slow = {PLACE}
    bench.poll()
    bench.paced.pause([PLACE])
    bench.slow = set()
    bench.poll()
    assert bench.port.paused == {PLACE}, "the loop has paused it meanwhile"


@pytest.mark.parametrize("event", ["revoking", "lost"])
def test_a_partition_that_went_away_is_never_resumed_when_its_old_handler_ends(event: str) -> None:
    bench = Bench()
    bench.paced.resume([PLACE])
    bench.slow = {PLACE}
    bench.poll()
    getattr(bench.port.events, event)(frozenset([PLACE]))
    bench.port.events.assigned(frozenset([PLACE]))  # and is back, paused by the client until the loop begins
    bench.slow = set()
    bench.poll()
    assert bench.port.paused == {PLACE}
