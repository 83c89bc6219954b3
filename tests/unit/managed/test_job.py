"""The life of one managed consumer, with an engine that a test makes fail."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from kafetrain import ConfigurationError, ConstantBackoff
from kafetrain.clock import Clock
from kafetrain.errors import FatalError
from kafetrain.managed import ConsumerConfig, ConsumerState, Registry
from kafetrain.record import Handler
from tests.waiting import wait_for

NOW, LATER = ConstantBackoff(timedelta(milliseconds=1)), ConstantBackoff(timedelta(hours=1))


class Engine:
    """Runs until the test says what ends it."""

    def __init__(self, on_success: Callable[[], None]) -> None:
        self.succeed = on_success
        self.started = self.stopped = False
        self.error: BaseException | None = None
        self.may_stop = threading.Event()
        self.may_stop.set()

    def start(self) -> None:
        self.started = True

    def check(self) -> None:
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        self.may_stop.wait(10)
        self.stopped = True
        self.check()


class Bench:
    def __init__(self) -> None:
        self.engines: list[Engine] = []
        self.refuse: BaseException | None = None
        self.registry = Registry(build=self.build)

    def build(self, config: ConsumerConfig, handler: Handler, clock: Clock, on_success: Callable[[], None]) -> Engine:
        if self.refuse is not None:
            raise self.refuse
        self.engines.append(Engine(on_success))
        return self.engines[-1]

    def register(self, name: str = "job", **changes: Any) -> None:
        declared = {"topic": "orders", "group_id": "g", "handler": print, "restart_backoff": NOW, **changes}
        self.registry.register_consumer(ConsumerConfig(job_name=name, **declared))

    def wait_until(self, state: ConsumerState, name: str = "job", engines: int | None = None) -> None:
        def reached() -> bool:
            return self.state(name) is state and engines in (None, len(self.engines))

        wait_for(f"{name} is {state.value}", reached, timeout=90)

    def state(self, name: str = "job") -> ConsumerState:
        return self.registry.status(name, lag=False).state


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.registry.stop()
    assert bench.registry.wait_stop(10)


def test_a_consumer_is_off_until_it_is_switched_on_and_comes_back_however_often(bench: Bench) -> None:
    bench.register()
    assert bench.state() is ConsumerState.OFF
    for times in (1, 2, 3):
        bench.registry.set_consumer_switch("job", True)
        bench.wait_until(ConsumerState.RUNNING, engines=times)
        bench.registry.set_consumer_switch("job", False)
        bench.wait_until(ConsumerState.OFF)
    assert all(engine.stopped for engine in bench.engines)


def test_switching_back_on_while_it_finishes_starts_it_anew(bench: Bench) -> None:
    bench.register()
    bench.registry.set_consumer_switch("job", True)
    bench.wait_until(ConsumerState.RUNNING)
    bench.engines[0].may_stop.clear()
    bench.registry.set_consumer_switch("job", False)
    bench.wait_until(ConsumerState.STOPPING)
    bench.registry.set_consumer_switch("job", True)
    assert len(bench.engines) == 1, "the first one finishes before the next begins"
    bench.engines[0].may_stop.set()
    bench.wait_until(ConsumerState.RUNNING, engines=2)


def test_errors_in_a_row_disable_it_and_only_the_switch_brings_it_back(bench: Bench) -> None:
    bench.register(max_consecutive_errors=3)
    bench.refuse = FatalError("no such topic")
    bench.registry.set_consumer_switch("job", True)
    bench.wait_until(ConsumerState.DISABLED)
    status = bench.registry.status("job", lag=False)
    assert (status.restarts, status.consecutive_errors) == (2, 3)
    assert status.last_error == "FatalError: no such topic"
    bench.refuse = None
    bench.registry.set_consumer_switch("job", True)
    bench.wait_until(ConsumerState.RUNNING, engines=1)
    assert bench.registry.status("job", lag=False).consecutive_errors == 0


def test_a_success_between_errors_begins_the_count_anew(bench: Bench) -> None:
    bench.register(max_consecutive_errors=2)
    bench.registry.set_consumer_switch("job", True)
    for run in range(1, 5):
        bench.wait_until(ConsumerState.RUNNING, engines=run)
        bench.engines[-1].succeed()
        bench.engines[-1].error = ValueError("a payload")
    bench.wait_until(ConsumerState.RUNNING, engines=5)
    assert bench.registry.status("job", lag=False).last_error == "ValueError", "a handler's text is not ours to show"


def test_a_consumer_that_waits_for_its_restart_is_switched_off_at_once(bench: Bench) -> None:
    bench.register(restart_backoff=LATER)
    bench.registry.set_consumer_switch("job", True)
    bench.wait_until(ConsumerState.RUNNING)
    bench.engines[0].error = SystemExit(1)
    bench.wait_until(ConsumerState.RESTARTING)
    bench.registry.set_consumer_switch("job", False)
    bench.wait_until(ConsumerState.OFF)


def test_start_all_leaves_alone_what_was_switched_off(bench: Bench) -> None:
    for name in ("a", "b", "c"):
        bench.register(name)
    bench.registry.set_consumer_switch("b", False)
    bench.registry.start_all_consumers()
    bench.wait_until(ConsumerState.RUNNING, "a")
    bench.wait_until(ConsumerState.RUNNING, "c")
    assert bench.state("b") is ConsumerState.OFF


def test_start_all_leaves_alone_what_is_disabled(bench: Bench) -> None:
    bench.register(max_consecutive_errors=1)
    bench.refuse = FatalError("no such topic")
    bench.registry.start_all_consumers()
    bench.wait_until(ConsumerState.DISABLED)
    bench.refuse = None
    bench.registry.start_all_consumers()
    assert (bench.state(), bench.engines) == (ConsumerState.DISABLED, [])
    bench.registry.set_consumer_switch("job", True)
    bench.wait_until(ConsumerState.RUNNING, engines=1)


def test_switches_that_race_with_stop_undo_it_never(bench: Bench) -> None:
    for name in ("a", "b"):
        bench.register(name)
    for _ in range(50):
        bench.registry.start_all_consumers()
        together = threading.Barrier(3)

        def flip(name: str, together: threading.Barrier = together) -> None:
            together.wait()
            try:
                while True:
                    bench.registry.set_consumer_switch(name, False)
                    bench.registry.set_consumer_switch(name, True)
            except ConfigurationError:
                pass  # it stays off

        flipping = [threading.Thread(target=flip, args=(name,)) for name in ("a", "b")]
        for thread in flipping:
            thread.start()
        together.wait()
        bench.registry.stop()
        for thread in flipping:
            thread.join()
        assert bench.registry.wait_stop(60)
        assert {bench.state(name) for name in ("a", "b")} == {ConsumerState.OFF}


def test_wait_stop_waits_for_all_side_by_side_and_says_when_one_takes_too_long(bench: Bench) -> None:
    for name in ("a", "b"):
        bench.register(name)
    bench.registry.start_all_consumers()
    bench.wait_until(ConsumerState.RUNNING, "a", engines=2)
    bench.wait_until(ConsumerState.RUNNING, "b")
    assert not bench.registry.wait_stop(0.01), "nobody has asked it to stop"
    for engine in bench.engines:
        engine.may_stop.clear()
    bench.registry.stop()
    bench.wait_until(ConsumerState.STOPPING, "a")
    bench.wait_until(ConsumerState.STOPPING, "b")
    assert not bench.registry.wait_stop(0.01)
    with pytest.raises(ConfigurationError, match="stays off"):
        bench.registry.set_consumer_switch("a", True)
    for engine in bench.engines:
        engine.may_stop.set()
    assert bench.registry.wait_stop(10)
    bench.registry.start_all_consumers()
    bench.wait_until(ConsumerState.RUNNING, "a", engines=4)
