"""Writes that must follow each other, written as they read.

A sequence is a generator that yields the future of one write and goes on once that is acknowledged:

    offset = yield producer.send(entry)
    yield producer.send(retry_record(lock_offset=offset))

Acknowledgements arrive on the client's thread, which must never block, and `send` may. So a thread of our own
resumes the sequences. Hundreds may be under way at once, each waiting for its own acknowledgement only.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from concurrent.futures import Future, InvalidStateError
from datetime import timedelta
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias, TypeVar

from kafetrain.errors import NotTrackedError, TransientError
from kafetrain.futures import LightFuture

__all__ = ["Running", "Sequence", "Sequencer"]

T = TypeVar("T")
Sequence: TypeAlias = Generator["Future[Any]", Any, T]


class Sequencer:
    """A loop that resumes sequences. `run` may be called from any thread."""

    def __init__(self, max_wait: timedelta = timedelta(milliseconds=100)) -> None:
        self._wait_s = max_wait.total_seconds()
        self._mutex = threading.Lock()  # guards the two below; nothing is called or taken inside
        self._idle = threading.Condition(self._mutex)
        self._open: set[Running[Any]] = set()
        self._closed = False
        self._acknowledged: SimpleQueue[Running[Any]] = SimpleQueue()

    def run(self, sequence: Sequence[T], running: Running[T] | None = None) -> Future[T]:
        """Start it here and now, up to its first wait. The future ends with what it returns or raises.

        It cannot be cancelled: what was sent cannot be called back. `running`: a new one, to be that future.
        """
        if running is None:
            running = Running()
        running.sequence, running.queue = sequence, self._acknowledged
        with self._mutex:
            if not (closed := self._closed):
                self._open.add(running)
        if closed:
            running.set_exception(NotTrackedError("(the tracker is closed)"))
        else:
            self._resume(running)
        return running

    def wait_idle(self, timeout_s: float) -> bool:
        """Until every sequence has ended; False where the time is up before. `step` must go on meanwhile."""
        with self._mutex:
            return self._idle.wait_for(lambda: not self._open, timeout_s)

    def step(self) -> None:
        """Resume what was acknowledged; wait a little where nothing was."""
        try:
            self._resume(self._acknowledged.get(timeout=self._wait_s))
            while True:
                self._resume(self._acknowledged.get_nowait())
        except Empty:
            pass

    def close(self) -> None:
        """A sequence that still waits is abandoned, as in a crash; who waits for it is told so."""
        with self._mutex:
            self._closed = True
            left = tuple(self._open)
            self._open.clear()
        why = "closed before the write was acknowledged: the record comes again"
        for running in left:
            try:
                running.set_exception(TransientError(why))
            except InvalidStateError:
                pass  # it has just ended

    def _resume(self, running: Running[Any]) -> None:
        sequence, write = running.sequence, running.write
        try:
            try:
                answer = None if write is None else write.result()
            except BaseException as error:
                awaited = sequence.throw(error)
            else:
                awaited = sequence.send(answer)
        except StopIteration as end:
            running.set_result(end.value)
        except BaseException as error:
            running.set_exception(error)
        else:
            awaited.add_done_callback(running)
            return
        with self._mutex:
            self._open.discard(running)
            if not self._open:
                self._idle.notify_all()


class Running(LightFuture[T]):
    """A sequence, the write that it waits for or has waited for, and the future of what will come of it."""

    sequence: Sequence[T]
    queue: SimpleQueue[Running[Any]]
    write: Future[Any] | None = None

    def __call__(self, write: Future[Any]) -> None:
        """The write has ended."""
        self.write = write
        self.queue.put(self)
