"""The breaker at work: one for each topic, and around each handler, inside of all middlewares, a guard that asks it.

While it is closed, a success costs the guard a look-up and two attributes. While it is open, a guard raises `Pause`
instead of running the handler, which is all that the layers above need to know.
"""

from __future__ import annotations

import threading
from collections.abc import Container, Hashable
from concurrent.futures import Future
from datetime import timedelta
from typing import Any

from loguru import logger

from kafetrain.breaker import Breaker
from kafetrain.clock import Clock
from kafetrain.core.breaker import BreakerState, Verdict
from kafetrain.core.chain import chain_key
from kafetrain.core.headers import decode_retry
from kafetrain.errors import Pause, RetriableError
from kafetrain.handlers import Following
from kafetrain.record import Handler, Record
from kafetrain.settings import Settings
from kafetrain.tracker.state import TrackerState
from kafetrain.tracker.writes import payload

__all__ = ["Breakers", "Circuit"]


class Breakers:
    """A tracker's. Both sides of it share them, so a failure counts wherever the handler ran. Any thread."""

    def __init__(self, settings: Settings, clock: Clock, state: TrackerState) -> None:
        self._settings, self._clock, self._state = settings, clock, state
        self._mutex = threading.Lock()  # guards the dictionary's growth; nothing is taken inside
        self.circuits: dict[str, Circuit] = {}
        """By the topic that a handler's record names: a source topic, or in loops of one's own a retry topic."""

    def guard(self, handler: Handler) -> Handler:
        """`handler` inside of its topic's breaker; itself where there is none, or where it is guarded already."""
        if self._settings.breaker is None or isinstance(handler, _Guard):
            return handler
        return _Guard(handler, self, self._state.by_retry_topic)

    def forget_all(self) -> None:
        """Closed, and nothing counted: what fails from now on is news."""
        with self._mutex:
            self.circuits.clear()

    def circuit(self, topic: str) -> Circuit:
        """The breaker of a record's topic."""
        of_retries = self._state.by_retry_topic.get(topic)
        source = topic if of_retries is None else of_retries.names.source
        with self._mutex:
            found = self.circuits.get(source)
            if found is None:
                found = self.circuits[source] = Circuit(source, self._settings, self._clock)
            self.circuits[topic] = found
        return found


class Circuit:
    """A topic's breaker. `mutex` guards its state; handlers, logs and futures' callbacks run without it."""

    def __init__(self, topic: str, settings: Settings, clock: Clock) -> None:
        self._topic, self._settings, self._clock = topic, settings, clock
        breaker = settings.breaker or Breaker()
        self._keys = breaker.keys
        self._mutex = threading.Lock()
        self.state = BreakerState(
            keys=breaker.keys,
            window_s=breaker.window.total_seconds(),
            probe_after_s=breaker.probe_after.total_seconds(),
            probe_at_most_s=breaker.probe_at_most.total_seconds(),
        )

    def enter(self, key: Hashable) -> bool:
        """It was open a moment ago. True: run, as the probe. False: run, it has closed. Else `Pause`."""
        with self._mutex:
            if not self.state.is_open:
                return False
            wait_s = self.state.ask(key, self._clock.monotonic())
        if wait_s is None:
            return True
        raise Pause(timedelta(seconds=wait_s))

    def ended(self, key: Hashable, error: BaseException | None, *, probe: bool) -> Pause | None:
        """A run has ended, with `error` where it failed. Returns what is to be raised instead of that, if anything."""
        if error is not None and (isinstance(error, Pause) or not isinstance(error, Exception)):
            if probe:
                self.called_off()
            return None
        kind = None
        if error is not None and self._settings.is_retriable(error):
            kind = _kind_of(error)
        with self._mutex:
            now, probes = self._clock.monotonic(), self.state.probes
            verdict = self.state.ended(key, kind, now, probe=probe)
            wait_s = self.state.wait_s(now)
        if verdict is Verdict.OPENED and kind is not None:
            logger.bind(topic=self._topic, error_type=kind.__name__, keys=self._keys).warning(
                "breaker open: {} keys in a row failed with {}, the topic's partitions pause", self._keys, kind.__name__
            )
        elif verdict is Verdict.CLOSED:
            logger.bind(topic=self._topic, probes=probes).info("breaker closed after {} probes", probes)
        if verdict is not Verdict.OPENED and verdict is not Verdict.WAIT:
            return None
        pause = Pause(timedelta(seconds=wait_s))
        pause.__cause__ = error
        return pause

    def called_off(self) -> None:
        """The probe ended without an outcome."""
        with self._mutex:
            self.state.undecided(self._clock.monotonic())


class _Guard:
    """A handler inside of the breakers."""

    __slots__ = ("_breakers", "_circuits", "_handler", "_retry_topics")

    def __init__(self, handler: Handler, breakers: Breakers, retry_topics: Container[str]) -> None:
        self._handler, self._breakers, self._circuits = handler, breakers, breakers.circuits
        self._retry_topics = retry_topics

    def __call__(self, record: Record) -> object:
        circuit = self._circuits.get(record.topic)
        if circuit is None:
            circuit = self._breakers.circuit(record.topic)
        probe = circuit.state.is_open and circuit.enter(self._key_of(record))
        try:
            result = self._handler(record)
        except BaseException as error:
            if pause := circuit.ended(self._key_of(record), error, probe=probe):
                raise pause from error
            raise
        if result is not None and isinstance(result, Future):
            return self._follow(circuit, self._key_of(record), result, probe=probe)
        if probe or circuit.state.counting:
            circuit.ended(None, None, probe=probe)
        return result

    def _follow(self, circuit: Circuit, key: Hashable, future: Future[Any], *, probe: bool) -> Future[Any]:
        """The handler's future decides, when it is done."""
        following = Following(future)

        def settle(ended: Future[Any]) -> None:
            if ended.cancelled():
                if probe:
                    circuit.called_off()
                following.called_off()
                return
            error = ended.exception()
            matters = probe or error is not None or circuit.state.counting
            pause = circuit.ended(key, error, probe=probe) if matters else None
            if error is None:
                following.set_result(ended.result())
            else:
                following.set_exception(pause or error)

        future.add_done_callback(settle)
        return following

    def _key_of(self, record: Record) -> Hashable:
        """The same for a source record and for what carries it in the retry topic."""
        if record.topic in self._retry_topics:
            id = decode_retry(record).id
            return id.partition, chain_key(payload(record, "key"), id.offset)
        return record.partition, chain_key(payload(record, "key"), record.offset)


def _kind_of(error: BaseException) -> type:
    """What it is about: `RetriableError` only says how it is meant."""
    origin = error.origin if isinstance(error, RetriableError) else None
    return type(origin if isinstance(origin, BaseException) else error)
