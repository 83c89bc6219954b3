"""Key-ordered work on one source partition: records of a key one after the other, of different keys side by side.

Work is handed to whichever thread is free, in units: a whole batch where there is one thread, else what waits of one
key. A key whose record is not complete when its handler returned (a redirect is under way, or the handler gave a
future) is *owned*: what follows waits in the key's queue, and a unit of its own goes on with it afterwards.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from functools import partial
from operator import attrgetter
from typing import Any

from kafetrain.client.ports import Committed
from kafetrain.clock import Clock
from kafetrain.consumer.delivery import Slot, current_slot
from kafetrain.core.ledger import Ledger, ranges_of
from kafetrain.core.lock_table import ChainKey
from kafetrain.errors import FatalError, NotTrackedError, PartitionLostError, Pause
from kafetrain.handlers import NoOutcome, future_of, has_no_outcome
from kafetrain.outcome import Outcome
from kafetrain.record import Handler, Record, TopicPartition, place_of
from kafetrain.threads import Workers

__all__ = ["SourcePartition"]


class SourcePartition:
    """The loop's thread dispatches, collects and ends; workers and futures' threads do the rest.

    `mutex` guards the key queues, the counters and the flags; handlers and futures' callbacks run without it.
    """

    def __init__(
        self,
        place: TopicPartition,
        next_offset: int,
        metadata: str,
        handler: Handler,
        workers: Workers,
        clock: Clock,
        on_fatal: Callable[[BaseException], None],
        *,
        whole_batches: bool,
        is_writing: Callable[[], bool] = lambda: False,
        ledger: Ledger | None = None,
    ) -> None:
        self.place, self.metadata = place, metadata
        self.ledger = ledger or Ledger(next_offset)
        self.committed = next_offset
        self.full = False
        self.mutex = threading.Lock()
        self._handler, self._workers, self._clock, self._on_fatal = handler, workers, clock, on_fatal
        self._whole_batches, self._is_writing = whole_batches, is_writing
        self._keys: dict[ChainKey, deque[Record]] = {}
        self._done: deque[int] = deque()  # offsets; appended by any thread, taken by the loop's
        self._runs: deque[_Run] = deque()  # batches that ran or run, to be collected
        self._batches: deque[_Batch] = deque()  # what was dispatched and is not complete
        self._active = 0  # units that run, and futures that records wait for
        self._futures: set[Future[Any]] = set()
        self._paused_until: float | None = None
        self._suspended: list[Callable[[], None]] = []  # units that a pause stopped, in order
        self._leaving = False

    # The loop's thread

    def dispatch(self, records: Sequence[Record]) -> None:
        """Hand over what was polled, in offset order."""
        self.ledger.begin_all(list(map(_offset, records)))
        self._batches.append(_Batch(records))
        if self._whole_batches:
            self._workers.submit(partial(self._run_batch, records))
            return
        fresh: list[ChainKey] = []
        with self.mutex:
            for record in records:
                key = record.offset if record.key is None else record.key
                queue = self._keys.get(key)
                if queue is None:
                    self._keys[key] = deque((record,))
                    fresh.append(key)
                else:
                    queue.append(record)
        for key in fresh:
            self._workers.submit(partial(self._run_key, key))

    def collect(self) -> None:
        """Complete in the ledger what workers have completed."""
        ledger, done, runs = self.ledger, self._done, self._runs
        for run in tuple(runs):
            over = run.over  # read first: nothing ends after it
            if (last := run.last) >= run.first:
                ledger.complete_range(run.first, last)
                run.first = last + 1
            if over:
                runs.remove(run)
        if done:
            for first, last in ranges_of([done.popleft() for _ in range(len(done))]):
                ledger.complete_range(first, last)
        while self._batches and self._batches[0].records[-1].offset < ledger.next_offset:
            self._batches.popleft()

    @property
    def open_bytes(self) -> int:
        """Of the batches that are not complete: keys and values."""
        return sum(batch.size_bytes for batch in self._batches)

    def to_commit(self) -> Committed | None:
        """None where nothing has moved since `committed`."""
        self.collect()
        next_offset = self.ledger.next_offset
        return Committed(next_offset, self.metadata) if next_offset > self.committed else None

    def position_with(self, completed: Collection[int]) -> Committed:
        """The position, were these offsets complete too; any thread, where the ledger is a shared one."""
        return Committed(max(self.committed, self.ledger.next_offset_with(completed)), self.metadata)

    def leave(self) -> None:
        """Start nothing new. What waits for a future that has not begun is called off; it stays incomplete."""
        with self.mutex:
            self._leaving = True
            futures = tuple(self._futures)
        for future in futures:
            future.cancel()

    @property
    def idle(self) -> bool:
        """Nothing of it runs, and no record waits for a write."""
        with self.mutex:
            return self._active == 0

    @property
    def writing(self) -> bool:
        """A redirect of one of its records is in flight."""
        return self._is_writing()

    @property
    def paused(self) -> bool:
        """A handler asked for a pause that is not over. Ends it when its time has come."""
        with self.mutex:
            if self._paused_until is None:
                return False
            if self._clock.monotonic() < self._paused_until:
                return True
            self._paused_until = None
            units, self._suspended = self._suspended, []
        for unit in units:
            self._workers.submit(unit)
        return False

    # Workers

    def _run_batch(self, records: Sequence[Record]) -> None:
        """The only worker: in order, but for what waits behind an owned key."""
        if not self._begin(partial(self._run_batch, records)):
            return
        slot, keys, handler = current_slot(), self._keys, self._handler
        run = self._new_run(records[0])
        try:
            for at, record in enumerate(records):
                if self._leaving:
                    return
                if keys and self._queued_behind(record):
                    run = self._new_run(record, after=run)
                    continue
                try:
                    result = handler(record)
                    if slot.future is None and (result is None or type(result) is Outcome):
                        run.last = record.offset
                        continue
                    future = _future(slot, result)
                except Pause as pause:
                    slot.future = None
                    self._suspend(pause, partial(self._run_batch, records[at:]))
                    return
                if future is None:
                    run.last = record.offset
                else:
                    run = self._new_run(record, after=run)
                    self._wait_for(record, future, own=True)
        except BaseException as error:
            slot.future = None
            self._fatal(error)
        finally:
            run.over = True
            self._end()

    def _new_run(self, record: Record, *, after: _Run | None = None) -> _Run:
        """Of records that complete in turn, from this one on; or behind this one, which does not."""
        if after is not None:
            after.over = True
        run = _Run(record.offset if after is None else record.offset + 1)
        self._runs.append(run)
        return run

    def _run_key(self, key: ChainKey) -> None:
        """One key's queue until it is empty, or a record of it waits for a future."""
        if not self._begin(partial(self._run_key, key)):
            return
        slot, queue = current_slot(), self._keys[key]
        try:
            while not self._leaving:
                with self.mutex:
                    if not queue:
                        del self._keys[key]
                        return
                    if self._paused_until is not None:
                        self._suspended.append(partial(self._run_key, key))
                        return
                    record = queue[0]
                try:
                    future = _future(slot, self._handler(record))
                except Pause as pause:
                    slot.future = None
                    self._suspend(pause, partial(self._run_key, key))
                    return
                with self.mutex:
                    queue.popleft()
                if future is not None:
                    self._wait_for(record, future, own=False)
                    return
                self._done.append(record.offset)
        except BaseException as error:
            slot.future = None
            self._fatal(error)
        finally:
            self._end()

    def _begin(self, unit: Callable[[], None]) -> bool:
        with self.mutex:
            if self._leaving:
                return False
            if self._paused_until is not None:
                self._suspended.append(unit)
                return False
            self._active += 1
            return True

    def _end(self) -> None:
        with self.mutex:
            self._active -= 1

    def _queued_behind(self, record: Record) -> bool:
        with self.mutex:
            queue = self._keys.get(record.offset if record.key is None else record.key)
            if queue is None:
                return False
            queue.append(record)
            return True

    def _suspend(self, pause: Pause, unit: Callable[[], None]) -> None:
        with self.mutex:
            until = self._clock.monotonic() + pause.retry_in.total_seconds()
            self._paused_until = until if self._paused_until is None else max(until, self._paused_until)
            self._suspended.insert(0, unit)  # before what was dispatched after it

    def _wait_for(self, record: Record, future: Future[Any], *, own: bool) -> None:
        """The record's key stands still until the future is done. `own`: nobody owns the key yet."""
        key = record.offset if record.key is None else record.key
        with self.mutex:
            self._active += 1
            if own:
                self._keys[key] = deque()
            self._futures.add(future)
            leaving = self._leaving
        if leaving:
            future.cancel()
        future.add_done_callback(partial(self._settled, key, record))

    def _settled(self, key: ChainKey, record: Record, future: Future[Any]) -> None:
        unfinished = has_no_outcome(future)
        error = None if unfinished else future.exception()
        with self.mutex:
            self._futures.discard(future)
            if error is None and not unfinished:
                self._done.append(record.offset)
            elif isinstance(error, Pause):
                self._keys[key].appendleft(record)
            go_on = not self._leaving and not unfinished and (error is None or isinstance(error, Pause))
            if go_on and not self._keys[key]:
                del self._keys[key]
                go_on = False
            self._active -= 1
        if isinstance(error, Pause):
            self._suspend(error, partial(self._run_key, key))
        elif error is not None:
            self._fatal(error)
        elif future.cancelled() and not self._leaving:
            self._fatal(FatalError(f"{place_of(record)}: the future that its handler returned was cancelled"))
        elif go_on:
            self._workers.submit(partial(self._run_key, key))

    def _fatal(self, error: BaseException) -> None:
        with self.mutex:
            too_late = self._leaving and isinstance(error, (NoOutcome, NotTrackedError, PartitionLostError))
            self._leaving = True
        if not too_late:  # otherwise the record is its next owner's
            self._on_fatal(error)


_offset = attrgetter("offset")


class _Batch:
    """Records that were dispatched together. Their size is measured only where they are still open later."""

    __slots__ = ("_size_bytes", "records")

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        self._size_bytes: int | None = None

    @property
    def size_bytes(self) -> int:
        if self._size_bytes is None:
            self._size_bytes = sum([len(record.value or b"") + len(record.key or b"") for record in self.records])
        return self._size_bytes


class _Run:
    """Records that one worker completes in turn. It only moves `last` on; the loop's thread collects up to there."""

    __slots__ = ("first", "last", "over")

    def __init__(self, first: int) -> None:
        self.first, self.last, self.over = first, first - 1, False


def _future(slot: Slot, result: object) -> Future[Any] | None:
    """What the record still waits for, if anything."""
    future, slot.future = slot.future, None
    if future is not None:
        return future
    return None if result is None or isinstance(result, Outcome) else future_of(result)
