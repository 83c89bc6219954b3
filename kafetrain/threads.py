"""Threads: a loop that steps until asked to stop, and workers that run what they are handed.

Both hand their fatal error to whoever stops or checks them, since a thread has nobody to raise to.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol

from loguru import logger

from kafetrain.errors import KafetrainError, first_line

__all__ = ["Loop", "LoopThread", "Workers", "stop_at_exit"]


class Loop(Protocol):
    """Something that is done in steps. One thread calls it."""

    def step(self) -> None:
        """One pass, never longer than its own short wait."""

    def close(self) -> None:
        """Called on the loop's thread, after the last step, also after one that raised."""


class LoopThread:
    """Runs a loop until `request_stop`."""

    def __init__(self, loop: Loop, name: str, on_error: Callable[[BaseException], None] | None = None) -> None:
        self._loop = loop
        self._on_error = on_error
        self._stopping = threading.Event()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def request_stop(self) -> None:
        """Returns at once. Ask every thread first, join afterwards: their waits overlap."""
        self._stopping.set()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; False where it has not come in time."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def check(self) -> None:
        """Raise what ended the loop, if something did."""
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        for stage in (self._step_on, self._loop.close):
            try:
                stage()
            except BaseException as error:
                self._fail(error)

    def _step_on(self) -> None:
        while not self._stopping.is_set():
            self._loop.step()

    def _fail(self, error: BaseException) -> None:
        if self.error is not None:
            return  # the first one is what ended it
        self.error = error
        # Only our own errors are known to hold no payload.
        said = first_line(error) if isinstance(error, KafetrainError) else type(error).__name__
        logger.bind(thread=self._thread.name).error("stopped by {}", said)
        if self._on_error is not None:
            try:
                self._on_error(error)
            except Exception as nested:
                logger.error("the on_fatal callback raised {}", type(nested).__name__)


class Workers:
    """`count` threads that take tasks as they are free. A task handles its own errors."""

    def __init__(self, count: int, name: str) -> None:
        # SimpleQueue is thread-safe by contract, and hands over in well under a microsecond.
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._has_free = threading.Event()
        self._has_free.set()
        self._threads = [threading.Thread(target=self._run, name=f"{name}-{i}", daemon=True) for i in range(count)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def submit(self, task: Callable[[], None]) -> None:
        """Any thread. Tasks start in the order of these calls."""
        if self._has_free.is_set():
            self._has_free.clear()
        self._tasks.put(task)

    def wait_for_a_free_one(self, timeout_s: float) -> None:
        """Until one of them has nothing to do, or it takes too long."""
        self._has_free.wait(timeout_s)

    def is_mine(self) -> bool:
        """Is this one of the workers' threads?"""
        return threading.current_thread() in self._threads

    def request_stop(self) -> None:
        """Each ends after what was submitted before this call."""
        for _ in self._threads:
            self._tasks.put(None)

    def join(self, timeout_s: float) -> bool:
        """Wait for all together; False where a task still runs. Such a thread is a daemon: it ends with the process."""
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
            del task
            if self._tasks.empty() and not self._has_free.is_set():
                self._has_free.set()


def stop_at_exit(stop: Callable[[], None], raised: object) -> None:
    """For `__exit__`: what `stop` raises is told, unless the block has `raised` itself."""
    try:
        stop()
    except BaseException:
        if raised is None:
            raise
