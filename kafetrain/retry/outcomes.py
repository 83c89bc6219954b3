"""What becomes of a retry: runs handlers on workers, and writes what follows from their outcomes.

Workers and acknowledgements only leave a callable in the inbox; `settle` calls them on the loop's thread, which alone
changes partitions. A write that fails is raised there, and ends the loop: nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from loguru import logger
from msgspec import structs

from kafetrain.core.entry import Entry
from kafetrain.core.headers import DeadLetterState, Malformed, decode_retry
from kafetrain.core.rules import due_after, exhausted
from kafetrain.core.schedule import Held
from kafetrain.errors import FatalError, PartitionLostError, Pause, text_of_error
from kafetrain.handlers import future_of, has_no_outcome
from kafetrain.record import Handler, MessageId, Record
from kafetrain.retry.partition import RetryPartition
from kafetrain.retry.view import SourceView
from kafetrain.threads import Workers
from kafetrain.topic_setup import PreparedTopics
from kafetrain.tracker.own_loops import malformed_letter, source_of
from kafetrain.tracker.parts import Parts
from kafetrain.tracker.state import TrackerState
from kafetrain.tracker.write_path import Work
from kafetrain.tracker.writes import DeadLetter, SourceRecord, Writes

__all__ = ["Outcomes"]


AT_A_TIME_S = 0.005


class Outcomes:
    """Of one retry loop, whose thread calls everything without an underscore but `inbox.put`."""

    def __init__(self, topic: str, handler: Handler, workers: Workers, parts: Parts, state: TrackerState) -> None:
        self._name, self._handler, self._workers = topic, handler, workers
        self._parts, self._state = parts, state
        self._settings, self._clock = parts.settings, parts.clock
        self.inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        """What `settle` will call. Any thread may put something."""

    @property
    def topic(self) -> PreparedTopics:
        # Looked up: its auxiliary topics may have grown.
        return self._state.topic(self._name)

    def settle(self, wait_s: float | None = None) -> bool:
        """Do what has arrived; with `wait_s`, wait that long for something to arrive. False where nothing had.

        For a while only, should more and more arrive: other retries come due meanwhile.
        """
        settled = False
        try:
            if wait_s:
                self.inbox.get(timeout=wait_s)()
                settled = True
            until = self._clock.monotonic() + AT_A_TIME_S
            while not settled or self._clock.monotonic() < until:
                self.inbox.get_nowait()()
                settled = True
        except Empty:
            pass
        return settled

    # What the loop asks for

    def run(self, part: RetryPartition, held: Held, entry: Entry) -> None:
        """Run the handler; `held` is busy until that has led to something durable."""
        view = SourceView(self.source(held), entry, self._settings.max_retries)
        part.open_work += 1
        self._workers.submit(partial(self._run, part, held, view))

    def park(self, part: RetryPartition, held: Held, entry: Entry) -> None:
        """Move a record behind a dead one to the dead-letter topic."""
        work = partial(self.writes(part).park, self.topic, self.source(held), entry)
        self.write(part, work, partial(self._drop, part, held), (held.at,))

    def free(self, part: RetryPartition, partition: int, offset: int, key: bytes | None) -> None:
        """End the lock of an id that nothing is held for."""
        id = MessageId(self._settings.group_id, self._name, partition, offset)
        self.write(part, partial(self.writes(part).tombstone, self.topic, id, key), _nothing)

    def bury_malformed(self, part: RetryPartition, record: Record, why: Malformed) -> None:
        """Put a record that is no retry record where a person can see it."""
        source, letter = malformed_letter(self._settings.group_id, record, why)
        work = partial(self.writes(part).dead_letter, self.topic, source, letter)
        self.write(part, work, partial(part.ledger.complete, record.offset), (record.offset,))

    # On a worker

    def _run(self, part: RetryPartition, held: Held, view: SourceView) -> None:
        # The partition may have been paused since this one was handed over.
        if part.leaving or self._clock.monotonic() < part.paused_until:
            self.inbox.put(partial(self._no_outcome, part, held))
            return
        try:
            result = self._handler(view)
            future = None if result is None else future_of(result)
        except BaseException as error:
            self.inbox.put(partial(self._failed, part, held, error))
            return
        if future is None:
            self.inbox.put(partial(self._succeeded, part, held))
        else:
            self.inbox.put(partial(self._await, part, held, future))

    # What has arrived

    def _await(self, part: RetryPartition, held: Held, future: Future[Any]) -> None:
        part.futures.add(future)
        if part.leaving:
            future.cancel()
        future.add_done_callback(lambda done: self.inbox.put(partial(self._future_ended, part, held, done)))

    def _future_ended(self, part: RetryPartition, held: Held, future: Future[Any]) -> None:
        part.futures.discard(future)
        if has_no_outcome(future):
            self._no_outcome(part, held)
            if future.cancelled() and not part.leaving:
                partition, offset = held.place
                raise FatalError(
                    f"{self._name}[{partition}]@{offset}: the future that its handler returned was cancelled"
                )
        elif (error := future.exception()) is not None:
            self._failed(part, held, error)
        else:
            self._succeeded(part, held)

    def _no_outcome(self, part: RetryPartition, held: Held) -> None:
        """It did not run to an end: no attempt is counted."""
        part.open_work -= 1
        if not part.gone:
            self._put_back(part, held)

    def _succeeded(self, part: RetryPartition, held: Held) -> None:
        part.open_work -= 1
        if not part.gone:
            id = MessageId(self._settings.group_id, self._name, *held.place)
            key = None if held.record is None else held.record.key
            work = partial(self.writes(part).tombstone, self.topic, id, key)
            self.write(part, work, partial(self._drop, part, held), (held.at,))

    def _failed(self, part: RetryPartition, held: Held, error: BaseException) -> None:
        if isinstance(error, Pause):
            until = self._clock.monotonic() + error.retry_in.total_seconds()
            part.paused_until = max(part.paused_until, until)
            self._no_outcome(part, held)
            return
        if not isinstance(error, Exception):  # SystemExit, KeyboardInterrupt: stop, and count nothing
            self._no_outcome(part, held)
            raise error
        part.open_work -= 1
        if part.gone:
            return
        with self._state.mutex:
            entry = part.entry_of(held)
        if entry is None:  # somebody ended it meanwhile
            self._drop(part, held)
            return
        source = self.source(held)
        failures, now_ms = entry.attempt + 1, self._clock.now_ms()
        retriable = self._settings.is_retriable(error)
        retry = retriable and not exhausted(
            failures, self._settings.max_retries, entry.first_failure_ms, now_ms, self._settings.maximum_attempts_age
        )
        given = SourceView(source, entry, self._settings.max_retries)
        entry = structs.replace(entry, key=source.key).failed(
            due_ms=due_after(error, failures, self._settings.backoff, now_ms) if retry else now_ms,
            now_ms=now_ms,
            error_type=type(error).__name__,
            error=text_of_error(error),
        )
        log = logger.bind(
            topic=source.id.topic, partition=source.id.partition, offset=source.id.offset, attempt=failures,
            error_type=entry.error_type,
        )  # fmt: skip
        if retry:
            log.debug("retry failed, the next is due in {} ms", entry.due_ms - now_ms)
            again: Work[Any] = partial(self.writes(part).entry, self.topic, source.id, entry)
            self.write(part, again, partial(self._put_back, part, held))
            return
        log.warning("dead-lettered after {} executions", failures)
        state = DeadLetterState.EXHAUSTED if retriable else DeadLetterState.NOT_RETRIABLE
        why = DeadLetter(state, failures, entry.error_type, entry.error, entry.first_failure_ms)
        source, ours = structs.replace(source, given=given), partial(_still_ours, part)
        work = partial(self.writes(part).die, self.topic, source, entry, why, ours, locked=True, error=error)
        self.write(part, work, partial(self._drop, part, held), (held.at,))

    # Writes

    def writes(self, part: RetryPartition) -> Writes:
        """For the work that `write` is given."""
        return self._parts.path_of(part.claim).writes

    def write(
        self, part: RetryPartition, work: Work[Any], then: Callable[[], object], completes: Collection[int] = ()
    ) -> None:
        """Start the writes; `then` once they are durable, which completes these offsets."""
        part.open_work += 1
        part.open_writes += 1
        written = self._parts.path_of(part.claim).run(work, part.claim, completes)
        written.add_done_callback(_Written(self.inbox, part, then))

    def _drop(self, part: RetryPartition, held: Held) -> None:
        with self._state.mutex:
            part.drop(held)

    def _put_back(self, part: RetryPartition, held: Held) -> None:
        with self._state.mutex:
            part.put_back(held)

    def source(self, held: Held) -> SourceRecord:
        """The source record that it carries."""
        if held.record is None:
            raise RuntimeError("a record without its payload is never under way")
        return source_of(held.record, held.info or decode_retry(held.record))


class _Written:
    """What follows a write, in the inbox once that has ended."""

    __slots__ = ("_ended", "_inbox", "_part", "_then")

    def __init__(
        self, inbox: SimpleQueue[Callable[[], None]], part: RetryPartition, then: Callable[[], object]
    ) -> None:
        self._inbox, self._part, self._then = inbox, part, then

    def __call__(self, ended: Future[Any]) -> None:
        self._ended = ended
        self._inbox.put(self._settle)

    def _settle(self) -> None:
        part = self._part
        part.open_work -= 1
        part.open_writes -= 1
        if part.gone:  # its next owner is delivered the record again, whether this was written or not
            return
        self._ended.result()  # raises
        self._then()


def _still_ours(part: RetryPartition) -> None:
    """Between two writes: the next owner goes on from what is in the log."""
    if part.gone:
        raise PartitionLostError(f"{part.place.topic}[{part.place.partition}] went to another instance")


def _nothing() -> None:
    pass
