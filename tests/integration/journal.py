"""What handlers did, in the order in which they did it, and the promises that such a history must keep.

A test wraps its handler (`Journal.recording`), lets a scenario run, and checks `no_loss`, `key_order` and
`honest_attempts` at the end. The checks know nothing of kafetrain but the promises.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from kafetrain import Handler, Pause, Record, get_retry_attempt

__all__ = ["BrokenPromise", "Event", "Journal", "Kind", "Place", "Written"]

Place: TypeAlias = "tuple[int, int]"
"""Source partition and offset of a record."""

Chain: TypeAlias = "tuple[int, bytes | int]"
"""Source partition and key; a record without a key is a chain of its own, named by its offset."""

Kind = Literal["started", "ended", "failed", "abandoned", "interrupted"]


class Written(NamedTuple):
    """A record that a test has written to its source topic."""

    partition: int
    offset: int
    key: bytes | None = None

    @property
    def place(self) -> Place:
        return (self.partition, self.offset)

    @property
    def chain(self) -> Chain:
        return _chain(self.partition, self.offset, self.key)


class BrokenPromise(AssertionError):
    """A history that must not be. Its text names the records."""


@dataclass(frozen=True, slots=True)
class Event:
    """`started`, then one of: `ended` (success), `failed` (it counts), `abandoned` (no outcome: a pause, a stop).

    `interrupted` stands between records: an instance ended, or partitions changed hands. What it ran may run again.
    """

    kind: Kind
    key: bytes | None = None
    partition: int = -1
    offset: int = -1
    attempt: int = 0
    instance: str = ""
    time: float = 0.0

    @property
    def place(self) -> Place:
        return (self.partition, self.offset)

    @property
    def chain(self) -> Chain:
        return _chain(self.partition, self.offset, self.key)

    def __str__(self) -> str:
        return f"{self.key!r} {self.partition}@{self.offset} (attempt {self.attempt})"


class Journal:
    """Any thread may add to it and look at it."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._mutex = threading.Lock()
        self._events = list(events)

    @staticmethod
    def now() -> float:
        """The clock of the events' times."""
        return time.monotonic()

    # Writing

    def add(self, kind: Kind, record: Record, instance: str = "") -> None:
        event = Event(
            kind, record.key, record.partition, record.offset, get_retry_attempt(record), instance, self.now()
        )
        with self._mutex:
            self._events.append(event)

    def interrupted(self, instance: str = "") -> None:
        """From here on records may run again that have run before. What `instance` still ran has no outcome."""
        with self._mutex:
            self._events.append(Event("interrupted", instance=instance, time=self.now()))

    def recording(self, handler: Handler, instance: str = "") -> Handler:
        """`handler`, with its starts and ends in this journal; of a future that it returns, the future's end."""

        def record_and_handle(record: Record) -> object:
            self.add("started", record, instance)
            try:
                result = handler(record)
            except BaseException as error:
                self._add_failure(record, error, instance)
                raise
            if not isinstance(result, Future):
                self.add("ended", record, instance)
                return result
            # A future of our own: the journal has the end before anybody else learns of it.
            told: Future[object] = Future()
            told.set_running_or_notify_cancel()

            def tell(ended: Future[object]) -> None:
                error = ended.exception()
                if error is None:
                    self.add("ended", record, instance)
                    told.set_result(ended.result())
                else:
                    self._add_failure(record, error, instance)
                    told.set_exception(error)

            result.add_done_callback(tell)
            return told

        return record_and_handle

    def _add_failure(self, record: Record, error: BaseException, instance: str) -> None:
        counts = isinstance(error, Exception) and not isinstance(error, Pause)
        self.add("failed" if counts else "abandoned", record, instance)

    # Reading

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

    # Promises

    def no_loss(self, written: Iterable[Written], dead_letters: Collection[Place] = ()) -> None:
        """P1 at rest: every record has succeeded, or is a dead letter."""
        lost = {record.place for record in written} - set(self.places("ended")) - set(dead_letters)
        if lost:
            raise BrokenPromise(f"neither succeeded nor dead: {_some(sorted(lost))}")

    def key_order(self, written: Iterable[Written] = (), dead_letters: Collection[Place] = ()) -> None:
        """P2: no record of a key starts before every earlier one has succeeded, or has failed for the last time.

        Between two interruptions a key only goes forward. After one, records that have ended may run again: from an
        earlier one on, and forward again. `written`: then also those count that have not started.
        """
        events = self.events
        started = {event.place for event in events if event.kind == "started"}
        last_failure = {event.place: at for at, event in enumerate(events) if event.kind == "failed"}
        order = _Order()
        for record in written:
            if record.place in started or record.place not in dead_letters:  # else it was parked, and never runs
                order.unended[record.chain].add(record.offset)
        for at, event in enumerate(events):
            if event.kind == "interrupted":
                order.interrupt(event.instance)
            elif event.kind == "started":
                order.start(event)
            else:
                is_dead = event.place in dead_letters and last_failure.get(event.place) == at
                order.stop(event, ended=event.kind == "ended" or is_dead)

    def honest_attempts(self) -> None:
        """P6: a record's attempt is the number of its executions that failed before. For a scenario without crashes."""
        failed: defaultdict[Place, int] = defaultdict(int)
        for event in self.events:
            if event.kind == "started" and event.attempt != failed[event.place]:
                raise BrokenPromise(f"{event} has failed {failed[event.place]} times")
            if event.kind == "failed":
                failed[event.place] += 1

    def once(self) -> None:
        """Nothing that has ended ran again."""
        ended: set[Place] = set()
        for event in self.events:
            if event.kind == "started" and event.place in ended:
                raise BrokenPromise(f"{event} ran again after it had ended")
            if event.kind == "ended":
                ended.add(event.place)


def _chain(partition: int, offset: int, key: bytes | None) -> Chain:
    return (partition, offset if key is None else key)


class _Order:
    """Where each key stands, event by event."""

    def __init__(self) -> None:
        self.unended: defaultdict[Chain, set[int]] = defaultdict(set)
        self.ended: set[Place] = set()
        self.running: dict[Place, str] = {}  # and the instance that runs it
        self.latest: dict[Chain, int] = {}  # started since the last interruption

    def interrupt(self, instance: str) -> None:
        self.running = {place: other for place, other in self.running.items() if other != instance}
        self.latest.clear()

    def start(self, event: Event) -> None:
        latest = self.latest.get(event.chain)
        if event.place in self.running:
            raise BrokenPromise(f"{event} runs twice at the same time")
        if latest is not None and event.offset < latest:
            raise BrokenPromise(f"{event} started after offset {latest} of its key, and nothing was interrupted")
        if latest == event.offset and event.place in self.ended:
            raise BrokenPromise(f"{event} ran again after it had ended, and nothing was interrupted")
        if earlier := [offset for offset in self.unended[event.chain] if offset < event.offset]:
            raise BrokenPromise(f"{event} started before offset {min(earlier)} of its key had ended")
        self.running[event.place] = event.instance
        self.latest[event.chain] = event.offset
        if event.place not in self.ended:
            self.unended[event.chain].add(event.offset)

    def stop(self, event: Event, *, ended: bool) -> None:
        self.running.pop(event.place, None)
        if ended:
            self.ended.add(event.place)
            self.unended[event.chain].discard(event.offset)


def _some(places: list[Place], limit: int = 10) -> str:
    shown = ", ".join(f"{partition}@{offset}" for partition, offset in places[:limit])
    return shown if len(places) <= limit else f"{shown} and {len(places) - limit} more"
