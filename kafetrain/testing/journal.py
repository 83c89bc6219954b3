"""What handlers did, in the order in which they did it, and the promises that such a history must keep.

A test wraps its handler (`Journal.recording`) and lets a scenario run. Afterwards it looks at what happened, and checks
`no_loss`, `key_order` and `honest_attempts`; or it gives the journal promises, which are fed as things happen.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable
from concurrent.futures import Future
from dataclasses import replace

from kafetrain.errors import Pause
from kafetrain.futures import copy_outcome
from kafetrain.record import Handler, Record, RetryHeader, get_retry_attempt, header
from kafetrain.testing.events import BrokenPromise, Event, Kind, Place, Standing, Written, some
from kafetrain.testing.promises import HonestAttempts, KeyOrder, NoLoss, Promise

__all__ = ["Journal"]


class Journal:
    """Any thread may add to it and look at it. `promises` see each event as it is added."""

    def __init__(self, events: Iterable[Event] = (), promises: Iterable[Promise] = ()) -> None:
        self._mutex = threading.Lock()
        self._added = threading.Condition(self._mutex)
        self._events: list[Event] = []
        self._promises = tuple(promises)
        self._broken: BrokenPromise | None = None
        for event in events:
            self._add(event)

    @staticmethod
    def now() -> float:
        """The clock of the events' times."""
        return time.monotonic()

    # Writing

    def add(self, kind: Kind, record: Record, instance: str = "", group: str = "") -> None:
        place = (record.partition, record.offset)
        retried_by = header(record, RetryHeader.GROUP) or ""
        self._add(Event(kind, record.key, *place, get_retry_attempt(record), instance, self.now(), group, retried_by))

    def interrupted(self, instance: str = "") -> None:
        """From here on records may run again that have run before. What `instance` still ran has no outcome."""
        self._add(Event("interrupted", instance=instance, time=self.now()))

    def recording(self, handler: Handler, instance: str = "", group: str = "") -> Handler:
        """`handler`, with its starts and ends in this journal; of a future that it returns, the future's end."""

        def record_and_handle(record: Record) -> object:
            self.add("started", record, instance, group)
            try:
                result = handler(record)
            except BaseException as error:
                self._add_failure(record, error, instance, group)
                raise
            if not isinstance(result, Future):
                self.add("ended", record, instance, group)
                return result
            # A future of our own: the journal has the end before anybody else learns of it.
            told: Future[object] = Future()
            told.set_running_or_notify_cancel()

            def tell(ended: Future[object]) -> None:
                if (error := ended.exception()) is None:
                    self.add("ended", record, instance, group)
                else:
                    self._add_failure(record, error, instance, group)
                copy_outcome(ended, told)

            result.add_done_callback(tell)
            return told

        return record_and_handle

    def _add_failure(self, record: Record, error: BaseException, instance: str, group: str) -> None:
        counts = isinstance(error, Exception) and not isinstance(error, Pause)
        self.add("failed" if counts else "abandoned", record, instance, group)

    def _add(self, event: Event) -> None:
        with self._added:
            self._events.append(event)
            self._added.notify_all()
            try:
                for promise in self._promises:
                    promise.see(event)
            except BrokenPromise as broken:  # not raised into the handler, where it would be one more failure
                self._broken = self._broken or broken

    # Reading

    def wait_until_ended(self, records: Iterable[Written], timeout_s: float = 30.0) -> None:
        """Until each of these has succeeded. Raises `TimeoutError`, which names those that have not."""
        wanted = {record.place for record in records}

        def missing() -> set[Place]:
            return wanted - {event.place for event in self._events if event.kind == "ended"}

        with self._added:
            if not self._added.wait_for(lambda: not missing(), timeout_s):
                raise TimeoutError(f"not within {timeout_s:g} s: the success of {some(missing())}")

    @property
    def events(self) -> list[Event]:
        with self._mutex:
            return list(self._events)

    def places(self, kind: Kind, key: bytes | None = None) -> list[Place]:
        """Where the records of these events stand, in the order of the events. `key` None: of every key."""
        return [e.place for e in self.events if e.kind == kind and (key is None or e.key == key)]

    def offsets(self, kind: Kind, key: bytes | None = None) -> list[int]:
        """As `places`, for a source topic of one partition."""
        return [offset for _, offset in self.places(kind, key)]

    def attempts(self, offset: int, partition: int = 0) -> list[int]:
        """`get_retry_attempt` as the handler saw it, start by start."""
        return [e.attempt for e in self.events if e.kind == "started" and e.place == (partition, offset)]

    # Promises that are fed

    def wrote(self, records: Iterable[Written]) -> None:
        """These are in the source topic."""
        with self._mutex:
            for record in records:
                for promise in self._promises:
                    promise.wrote(record)

    def check(self) -> None:
        """Raise the first promise that was broken, if one was."""
        with self._mutex:
            if self._broken is not None:
                raise self._broken

    def at_quiet(self, standing: Standing) -> None:
        """`check`, and what holds when nothing happens any more before time passes."""
        self.check()
        for promise in self._promises:
            promise.at_quiet(standing)

    def at_rest(self, standing: Standing) -> None:
        """`check`, and what holds when nothing waits any more."""
        self.check()
        for promise in self._promises:
            promise.at_rest(standing)

    # Promises on what has happened

    def no_loss(self, written: Iterable[Written], dead_letters: Collection[Place] = ()) -> None:
        """P1 at rest: every record has succeeded, or is a dead letter."""
        promise = NoLoss()
        for event in self.events:
            promise.see(event)
        promise.at_rest(Standing(tuple(written), dict.fromkeys(dead_letters, "")))

    def key_order(self, written: Iterable[Written] = (), dead_letters: Collection[Place] = ()) -> None:
        """P2: no record of a key starts before every earlier one has succeeded, or has failed for the last time.

        Between two interruptions a key only goes forward. After one, records that have ended may run again: from an
        earlier one on, and forward again. `written`: then also those count that have not started.
        """
        events = self.events
        started = {event.place for event in events if event.kind == "started"}
        last_failure = {event.place: at for at, event in enumerate(events) if event.kind == "failed"}
        order = KeyOrder()
        for record in written:
            if record.place in started or record.place not in dead_letters:  # else it was parked, and never runs
                order.wrote(record)
        for at, event in enumerate(events):
            is_final = event.place in dead_letters and last_failure.get(event.place) == at
            order.see(replace(event, final=is_final) if event.kind == "failed" else event)

    def honest_attempts(self) -> None:
        """P6: a record's attempt is the number of its executions that failed before."""
        promise = HonestAttempts()
        for event in self.events:
            promise.see(event)

    def once(self) -> None:
        """Nothing that has ended ran again."""
        ended: set[Place] = set()
        for event in self.events:
            if event.kind == "started" and event.place in ended:
                raise BrokenPromise(f"{event} ran again after it had ended")
            if event.kind == "ended":
                ended.add(event.place)
