"""One instance of an application, as its three layers' loops: built as they are for users, but for the threads.

Each component is stepped by name. What a step raises ends the instance, as it ends the thread in an application.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial

from kafetrain import ErrorTracker, Settings
from kafetrain.consumer.middleware import ErrorHandlingMiddleware, compose_for_successes
from kafetrain.consumer.source_loop import SourceLoop
from kafetrain.errors import KafetrainError
from kafetrain.record import Handler
from kafetrain.retry.loop import RetryLoop
from kafetrain.testing.simulated import SimulatedClient, SimulatedClock
from kafetrain.testing.simulated.consumer import SimulatedConsumer
from kafetrain.topic_setup import prepare_topics
from kafetrain.tracker.parts import Parts
from kafetrain.tracker.state import Side
from kafetrain.tracker.transactor import Transactor
from tests.simulation.stepped import (
    InstanceClock,
    PausingCondition,
    PausingEvent,
    SteppedExecutor,
    SteppedThread,
    SteppedWorkers,
)

__all__ = ["COMPONENTS", "SimulatedInstance"]

PATIENT_FOR = 10
"""Looks at the clock while it stops, after which `shutdown_timeout` is over."""

COMPONENTS = (
    "source",
    "source workers",
    "retry",
    "retry workers",
    "reader",
    "writes",
    "lookups",
    "source transactions",
    "retry transactions",
)

TRANSACTION_STEPS = 4
"""Of each transaction thread in one round: it pauses at each request."""


class SimulatedInstance:
    """`step` one component, or `round` all of them. `stop` it in good order, or let the cluster kill it."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        topic: str,
        handler: Handler,
        client: SimulatedClient,
        clock: SimulatedClock,
    ) -> None:
        self.name, self.settings, self.topic, self.client = name, settings, topic, client
        self._shared_clock, self._clock = clock, InstanceClock(clock)
        self.error: BaseException | None = None
        """What ended it."""
        self.left_out: frozenset[str] = frozenset()
        """Components that are never stepped: it never joins the group of a loop that is left out."""
        tracker = self.tracker = ErrorTracker(settings, client=client, clock=self._clock)
        for side in Side:
            tracker.track_by_assignment(side)
        state = tracker.state
        state.changed = PausingCondition(state.mutex)
        parts = self.parts = Parts(client, state, settings, self._clock, tracker._hooks, max_wait=timedelta(0))
        tracker._parts, tracker.submit = parts, parts.source.submit
        prepared = prepare_topics(parts.admin, settings, topic, clock=self._clock, wait=clock.advance)
        state.add_topic(prepared)
        self.source_workers, self.retry_workers = SteppedWorkers(), SteppedWorkers()
        self.lookups = SteppedExecutor()
        middlewares = (ErrorHandlingMiddleware(tracker),)
        self.source = SourceLoop(
            [topic],
            partial(compose_for_successes, middlewares, tracker.guard(handler)),
            client.group_consumer(settings.group_id, auto_offset_reset="earliest"),
            self.source_workers,
            settings,
            self._clock,
            tracker,
        )
        self.retry = RetryLoop(
            prepared,
            tracker.guard(handler),
            client.group_consumer(settings.retry_group_id, auto_offset_reset="earliest"),
            self.retry_workers,
            self.lookups,
            parts,
            state,
            client.reader,
        )
        self.consumers: dict[str, SimulatedConsumer] = {
            side: consumer
            for side, consumer in (("source", self.source._consumer), ("retry", self.retry._consumer))
            if isinstance(consumer, SimulatedConsumer)
        }
        self._transactions: dict[str, SteppedThread] = {}
        for name, transactor in (("source", self.source._transactor), ("retry", self.retry._transactor)):
            if transactor is not None:
                self._transactions[f"{name} transactions"] = _stepped(transactor)
        self._steps: dict[str, Callable[[], None]] = {
            "source": self.source.step,
            "source workers": self.source_workers.step,
            "retry": self.retry.step,
            "retry workers": self.retry_workers.step,
            "reader": parts.reader.step,
            "writes": parts.sequencer.step,
            "lookups": self.lookups.go_on,
            **{name: thread.go_on for name, thread in self._transactions.items()},
        }

    def step(self, component: str) -> None:
        """Raises nothing: see `error`."""
        if component in self.left_out or component not in self._steps:
            return
        try:
            self._steps[component]()
        except KafetrainError as error:
            self.error = error

    def round(self) -> None:
        """Every component once, and each transaction a few steps, until one fails."""
        for component in COMPONENTS:
            for _ in range(TRANSACTION_STEPS if component in self._transactions else 1):
                if self.error is None:
                    self.step(component)

    def set_wall_clock(self, off: timedelta) -> None:
        """`off` from the others', either way."""
        self._clock.wall_off_ms = round(off.total_seconds() * 1000)

    def end(self) -> None:
        """Its process ends: so do its threads, wherever they are."""
        for thread in self._transactions.values():
            thread.end()
        self.lookups.end()

    def stop(self, meanwhile: Callable[[], None]) -> None:
        """In good order, as far as `shutdown_timeout` allows. `meanwhile`: what goes on while it waits, a second at a
        time, besides its own other threads."""

        looks = 0

        def wait() -> None:
            nonlocal looks
            looks += 1
            self._clock.on_look = None
            meanwhile()
            if looks > PATIENT_FOR:
                self._clock.ahead_s += self.settings.shutdown_timeout.total_seconds()
            self.parts.sequencer.step()
            for thread in self._transactions.values():
                thread.go_on()
            self.lookups.go_on()
            self.source_workers.step()
            self.retry_workers.step()
            self._shared_clock.advance(1)
            self._clock.on_look = wait

        for close in (self.source.close, self.retry.close):
            self._clock.on_look = wait
            try:
                close()
            except KafetrainError as error:
                self.error = self.error or error
            finally:
                self._clock.on_look = None
        self.parts.sequencer.close()
        self.parts.reader.close()
        self.tracker.state.forget_all()

    @property
    def read_to(self) -> int | None:
        """How far its tables follow the redirect topic, the one that is behind most; None where it has none."""
        tables = self.tracker.state.tables.values()
        return min(((table.rebuilt or table).next_offset for table in tables), default=None)


def _stepped(transactor: Transactor) -> SteppedThread:
    """Its thread, which the package's fixture has put there; it waits nowhere in real time."""
    transactor._wait_s, transactor._stopping = 0.0, PausingEvent()
    thread = transactor._thread
    assert isinstance(thread, SteppedThread)
    return thread
