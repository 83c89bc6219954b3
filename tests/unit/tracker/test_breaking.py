"""The guard around a handler: what it runs, what it raises, what it says."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from loguru import logger

from kafetrain import Breaker, NotRetriableError, Pause, RetriableError, Settings
from kafetrain.handlers import NoOutcome
from kafetrain.tracker.breaking import Breakers
from kafetrain.tracker.state import TrackerState
from tests.unit.fakes import FakeClock

KEYS = 3


def record(number: int, topic: str = "orders", key: bytes | None = None) -> Any:
    key = b"key-%d" % number if key is None else key
    return SimpleNamespace(topic=topic, partition=0, offset=number, key=key)


class Bench:
    """A guarded handler. `error`: what it raises; `futures`: it returns one for each run instead."""

    def __init__(self, breaker: Breaker | None) -> None:
        self.clock = FakeClock()
        settings = Settings(group_id="billing", breaker=breaker)
        self.breakers = Breakers(settings, self.clock, TrackerState())
        self.error: BaseException | None = None
        self.futures: list[Future[Any]] | None = None
        self.runs: list[int] = []
        self.call: Any = self.breakers.guard(self.handle)

    def handle(self, record: Any) -> object:
        self.runs.append(record.offset)
        if self.futures is not None:
            self.futures.append(Future())
            return self.futures[-1]
        if self.error is not None:
            raise self.error
        return "done"

    def open(self) -> None:
        self.error = ConnectionError("down")
        for number in range(KEYS - 1):
            with pytest.raises(ConnectionError):
                self.call(record(number))
        with pytest.raises(Pause):
            self.call(record(KEYS - 1))
        self.runs.clear()

    def pause(self, number: int) -> timedelta:
        with pytest.raises(Pause) as caught:
            self.call(record(number))
        return caught.value.retry_in


@pytest.fixture
def bench() -> Bench:
    return Bench(Breaker(keys=KEYS, probe_after=timedelta(milliseconds=1500), probe_at_most=timedelta(seconds=4)))


@pytest.fixture
def events() -> Iterator[list[tuple[str, str, dict[str, Any]]]]:
    found: list[tuple[str, str, dict[str, Any]]] = []
    logger.enable("kafetrain")

    def keep(message: Any) -> None:
        found.append((message.record["level"].name, message.record["message"], message.record["extra"]))

    sink = logger.add(keep, level="DEBUG")
    yield found
    logger.remove(sink)
    logger.disable("kafetrain")


def test_without_a_breaker_a_handler_stays_as_it_is() -> None:
    bench = Bench(None)
    assert bench.call == bench.handle


def test_a_guarded_handler_is_not_guarded_twice(bench: Bench) -> None:
    assert bench.breakers.guard(bench.call) is bench.call


def test_a_success_comes_back_as_it_is(bench: Bench) -> None:
    assert bench.call(record(1)) == "done"


def test_the_failure_that_opens_it_becomes_a_pause_and_nothing_runs_until_the_probe(bench: Bench) -> None:
    bench.open()
    assert bench.pause(0) == timedelta(seconds=1)
    bench.clock.wait(1)
    assert bench.pause(1) == timedelta(milliseconds=500)
    assert bench.runs == []
    bench.clock.wait(0.5)
    assert bench.pause(7) == timedelta(seconds=1), "the probe fails, the next is 3 s away"
    assert bench.runs == [7]
    bench.clock.wait(3)
    bench.error = None
    assert bench.call(record(1)) == "done"
    assert bench.call(record(7)) == "done"


def test_it_says_once_that_it_opens_and_once_that_it_closes(
    bench: Bench, events: list[tuple[str, str, dict[str, Any]]]
) -> None:
    bench.open()
    for number in range(5):
        bench.pause(number)
    bench.clock.wait(1.5)
    bench.pause(0)
    bench.clock.wait(3)
    bench.error = None
    bench.call(record(1))
    assert events == [
        (
            "WARNING",
            "breaker open: 3 keys in a row failed with ConnectionError, the topic's partitions pause",
            {"topic": "orders", "error_type": "ConnectionError", "keys": 3},
        ),
        ("INFO", "breaker closed after 2 probes", {"topic": "orders", "probes": 2}),
    ]


def test_each_topic_has_its_own(bench: Bench) -> None:
    bench.open()
    with pytest.raises(ConnectionError):
        bench.call(record(0, topic="other"))


def test_records_without_a_key_are_keys_of_their_own(bench: Bench) -> None:
    bench.error = ConnectionError("down")
    for offset in range(KEYS - 1):
        with pytest.raises(ConnectionError):
            bench.call(SimpleNamespace(topic="orders", partition=0, offset=offset, key=None))
    with pytest.raises(Pause):
        bench.call(SimpleNamespace(topic="orders", partition=0, offset=KEYS, key=None))


@pytest.mark.parametrize(
    "error", [NotRetriableError("no"), RetriableError("no", retry=False)], ids=lambda error: type(error).__name__
)
def test_what_is_not_retriable_opens_nothing_and_closes_it(bench: Bench, error: Exception) -> None:
    bench.error = error
    for number in range(2 * KEYS):
        with pytest.raises(type(error)):
            bench.call(record(number))
    bench.open()
    bench.clock.wait(1.5)
    bench.error = error
    for number in range(2):
        with pytest.raises(type(error)):
            bench.call(record(number))


def test_a_retriable_error_is_of_the_class_of_its_origin(bench: Bench) -> None:
    for number, origin in enumerate([ConnectionError(), LookupError(), ConnectionError(), LookupError()]):
        bench.error = RetriableError(origin)
        with pytest.raises(RetriableError):
            bench.call(record(number))
    bench.error = RetriableError(LookupError())
    with pytest.raises(RetriableError):
        bench.call(record(4))
    bench.error = LookupError()
    assert bench.pause(5) > timedelta(0)


@pytest.mark.parametrize("end", [Pause(timedelta(seconds=9)), KeyboardInterrupt()], ids=lambda end: type(end).__name__)
def test_a_probe_without_an_outcome_lets_the_next_one_through(bench: Bench, end: BaseException) -> None:
    bench.open()
    bench.clock.wait(1.5)
    bench.error = end
    with pytest.raises(type(end)):
        bench.call(record(0))
    bench.clock.wait(1.5)
    bench.error = None
    assert bench.call(record(1)) == "done"


# Futures


def test_failures_of_futures_count_and_the_one_that_opens_it_ends_with_a_pause(bench: Bench) -> None:
    bench.futures = []
    returned = [bench.call(record(number)) for number in range(KEYS + 1)]
    for future in bench.futures:
        future.set_exception(ConnectionError("down"))
    kinds = [type(future.exception()) for future in returned]
    assert kinds == [ConnectionError] * (KEYS - 1) + [Pause] * 2, "the last one ran already when it opened"


def test_a_future_may_be_the_probe(bench: Bench) -> None:
    bench.open()
    bench.futures = []
    bench.clock.wait(1.5)
    probe = bench.call(record(1))
    assert bench.pause(2) == timedelta(seconds=1), "one at a time"
    bench.futures[0].set_result("done")
    assert probe.result() == "done"
    assert not bench.call(record(2)).done()


@pytest.mark.parametrize("no_outcome", [True, False], ids=["no outcome", "cancelled"])
def test_a_probe_that_is_called_off_is_over(bench: Bench, no_outcome: bool) -> None:
    bench.open()
    bench.futures = []
    bench.clock.wait(1.5)
    probe = bench.call(record(1))
    if no_outcome:
        bench.futures[0].set_exception(NoOutcome())
        assert isinstance(probe.exception(), NoOutcome)
    else:
        assert probe.cancel()
        assert bench.futures[0].cancelled()
        assert probe.cancelled()
    bench.clock.wait(1.5)
    assert not bench.call(record(2)).done(), "the next probe"


def test_a_future_that_succeeds_starts_the_count_again(bench: Bench) -> None:
    bench.error = ConnectionError("down")
    for number in range(KEYS - 1):
        with pytest.raises(ConnectionError):
            bench.call(record(number))
    bench.futures = []
    bench.call(record(9))
    bench.futures.pop().set_result(None)
    bench.futures = None
    with pytest.raises(ConnectionError):
        bench.call(record(5))


def test_a_closed_tracker_forgets(bench: Bench) -> None:
    bench.open()
    bench.breakers.forget_all()
    with pytest.raises(ConnectionError):
        bench.call(record(0))
