"""Key-ordered work on one source partition: records of a key one after the other, of different keys side by side.

Where there is one thread, it is handed whole batches. Several share the keys that are ready: whichever is free takes
the next key with all that waits of it, and calls another thread while there are more. A key whose record is not
complete when its handler returned (a redirect is under way, or the handler gave a future) is *held*: what follows
waits in the key's queue, and is ready afterwards.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from kafetrain.client.ports import Committed
from kafetrain.clock import Clock
from kafetrain.consumer.batches import Batch, Run
from kafetrain.consumer.delivery import Slot, current_slot
from kafetrain.consumer.key_queues import KeyQueues, Taken
from kafetrain.consumer.middleware import SuccessesFirst
from kafetrain.core.chain import ChainKey
from kafetrain.core.ledger import Ledger, ranges_of
from kafetrain.errors import FatalError, NotTrackedError, PartitionLostError, Pause
from kafetrain.handlers import NoOutcome, future_of, has_no_outcome
from kafetrain.outcome import Outcome
from kafetrain.record import Handler, Record, TopicPartition, place_of
from kafetrain.threads import Workers

__all__ = ["SourcePartition"]

SLICE_S = 0.005
"""How long a worker goes on with one key, or with keys of one partition, while others wait for their turn."""


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
        self._run_successes = handler.run if isinstance(handler, SuccessesFirst) else lambda *_: handler
        self._whole_batches, self._is_writing = whole_batches, is_writing
        self._keys = KeyQueues()
        self._is_called = False  # a worker that takes what is ready has been asked for, and has not begun
        self._done: deque[int] = deque()  # offsets; appended by any thread, taken by the loop's
        self._runs: deque[Run] = deque()  # batches that ran or run, to be collected
        self._batches: deque[Batch] = deque()  # what was dispatched and is not complete
        self._active = 0  # units that run, and futures that records wait for
        self._futures: set[Future[Any]] = set()
        self._paused_until: float | None = None
        self._to_run: deque[tuple[Batch, int]] = deque()  # whole batches, and from where on; in order, pauses or not
        self.leaving = False

    # The loop's thread

    def dispatch(self, records: Sequence[Record]) -> None:
        """Hand over what was polled, in offset order."""
        batch = Batch(records)
        self.ledger.begin_all(batch.offsets)
        self._batches.append(batch)
        if self._whole_batches:
            self._to_run.append((batch, 0))
            self._workers.submit(self._run_batch)
            return
        with self.mutex:
            self._keys.add(records)
        self._call_worker()

    def collect(self) -> None:
        """Complete in the ledger what workers have completed."""
        ledger, done, runs = self.ledger, self._done, self._runs
        for _ in range(len(runs)):  # workers append to them meanwhile
            run = runs.popleft()
            over = run.over  # read first: nothing ends after it
            if (completed := run.collect()) is not None:
                ledger.complete_range(*completed)
            if not over:
                runs.append(run)
        if done:
            for first, last in ranges_of([done.popleft() for _ in range(len(done))]):
                ledger.complete_range(first, last)
        while self._batches and self._batches[0].offsets[-1] < ledger.next_offset:
            self._batches.popleft()

    @property
    def open_bytes(self) -> int:
        """Of the batches that are not complete: keys and values that are still held."""
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
            self.leaving = True
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
            waiting = len(self._to_run)
        for _ in range(waiting):
            self._workers.submit(self._run_batch)
        self._call_worker()
        return False

    # Workers

    def _run_batch(self) -> None:
        """The only worker, with the first batch that is to run: in order, but for what waits behind a held key."""
        with self.mutex:
            if not self._to_run or not self._begin():
                return
            batch, begin = self._to_run.popleft()
        slot, waiting, run_successes = current_slot(), self._keys.waiting, self._run_successes
        records = batch.records
        run = first_run = self._new_run(batch, begin)
        try:
            while (at := run.done) < len(records) and not self.leaving:
                if waiting and self._waits_behind(records[at]):
                    run = self._run_behind(run)
                    continue
                handler = self._handler if waiting else run_successes(records, run, self)
                if handler is None:
                    continue
                at, record = run.done, records[run.done]
                try:
                    result = handler(record)
                    if slot.future is None and (result is None or type(result) is Outcome):
                        run.done = at + 1
                        continue
                    future, key_waits = _awaited(slot, result)
                except Pause as pause:
                    slot.future = None
                    with self.mutex:
                        self._to_run.appendleft((batch, at))  # whichever call comes next begins with it
                        self._pause(pause)
                    return
                if future is None:
                    run.done = at + 1
                else:
                    run = self._run_behind(run)
                    self._wait_for(record, future, key_waits=key_waits)
        except BaseException as error:
            slot.future = None
            self._fatal(error)
        finally:
            if begin == 0 and run is first_run and run.done == len(records):
                batch.let_go()
            run.over = True
            self._end()

    def _new_run(self, batch: Batch, begin: int) -> Run:
        run = Run(batch, begin)
        self._runs.append(run)
        return run

    def _run_behind(self, run: Run) -> Run:
        """From behind the record that this run has come to, and which does not complete in its turn."""
        run.over = True
        return self._new_run(run.batch, run.done + 1)

    def _call_worker(self) -> None:
        """Have one more worker take what is ready, unless one is called already."""
        with self.mutex:
            if self._is_called or not self._keys.has_ready:
                return
            self._is_called = True
        self._workers.submit(self._run_ready)

    def _run_ready(self) -> None:
        """Keys that are ready, one after the other, for a slice of time."""
        with self.mutex:
            self._is_called = False
            if not self._begin():
                return
        until = self._clock.monotonic() + SLICE_S
        try:
            while (taken := self._take()) is not None:
                self._run_taken(*taken, until)
                if self._clock.monotonic() >= until:
                    self._call_worker()
                    return
        except BaseException as error:
            current_slot().future = None
            self._fatal(error)
        finally:
            self._end()

    def _take(self) -> Taken | None:
        with self.mutex:
            if self.leaving or self._paused_until is not None:
                return None
            taken = self._keys.take()
        if self._keys.has_ready and not self._is_called:
            self._call_worker()
        return taken

    def _run_taken(self, key: ChainKey, records: Sequence[Record], until: float) -> None:
        """In order, until a record of the key waits for a future or the slice is over. What is not run goes back."""
        slot, handler, done = current_slot(), self._handler, self._done
        for at, record in enumerate(records):
            if at and (self.leaving or self._paused_until is not None or self._clock.monotonic() >= until):
                with self.mutex:
                    self._keys.give_back(key, records[at:])
                return
            try:
                result = handler(record)
                if slot.future is None and (result is None or type(result) is Outcome):
                    done.append(record.offset)
                    continue
                future, key_waits = _awaited(slot, result)
            except Pause as pause:
                slot.future = None
                with self.mutex:
                    self._keys.give_back(key, records[at:])
                    self._pause(pause)
                return
            if future is None:
                done.append(record.offset)
            else:
                self._wait_for(record, future, records[at + 1 :], key_waits=key_waits)
                if key_waits:
                    return
        with self.mutex:
            self._keys.give_back(key)

    def _begin(self) -> bool:
        """May a worker run records now? Call `_end` then. The caller has the mutex."""
        if self.leaving or self._paused_until is not None:
            return False
        self._active += 1
        return True

    def _end(self) -> None:
        with self.mutex:
            self._active -= 1

    def _waits_behind(self, record: Record) -> bool:
        with self.mutex:
            return self._keys.add_behind(record)

    def _pause(self, pause: Pause) -> None:
        """The caller has the mutex."""
        until = self._clock.monotonic() + pause.retry_in.total_seconds()
        self._paused_until = until if self._paused_until is None else max(until, self._paused_until)

    def _wait_for(self, record: Record, future: Future[Any], behind: Sequence[Record] = (), *, key_waits: bool) -> None:
        """The record is complete when the future is done, and its key is held until then if it has to wait.

        `behind`: what was taken with the record.
        """
        key = None
        with self.mutex:
            self._active += 1
            if key_waits:
                key = record.offset if record.key is None else record.key
                self._keys.hold(key, behind)
            self._futures.add(future)
            leaving = self.leaving
        if leaving:
            future.cancel()
        future.add_done_callback(partial(self._settled, key, record))

    def _settled(self, key: ChainKey | None, record: Record, future: Future[Any]) -> None:
        """`key`: the one that is held."""
        unfinished = has_no_outcome(future)
        error = None if unfinished else future.exception()
        with self.mutex:
            self._futures.discard(future)
            self._active -= 1
            if again := isinstance(error, Pause) and key is not None:
                self._keys.give_back(key, [record])
                self._pause(error)
            elif error is None and not unfinished:
                self._done.append(record.offset)
                if key is not None:
                    self._keys.give_back(key)
        if error is not None and not again:
            self._fatal(error)
        elif future.cancelled() and not self.leaving:
            self._fatal(FatalError(f"{place_of(record)}: the future that its handler returned was cancelled"))
        else:
            self._call_worker()

    def _fatal(self, error: BaseException) -> None:
        with self.mutex:
            too_late = self.leaving and isinstance(error, (NoOutcome, NotTrackedError, PartitionLostError))
            self.leaving = True
        if not too_late:  # otherwise the record is its next owner's
            self._on_fatal(error)


def _awaited(slot: Slot, result: object) -> tuple[Future[Any] | None, bool]:
    """What the record still waits for, if anything, and whether the next of its key waits for that too."""
    future, slot.future = slot.future, None
    if future is not None:
        return future, slot.key_waits
    return None if result is None or isinstance(result, Outcome) else future_of(result), True
