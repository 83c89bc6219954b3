"""Stand-ins for threads: what they are handed waits until a test lets it run.

A loop that waits in the middle of its step, as transactions do, has a thread of its own, which runs only while
`go_on` waits for it: until it calls `pause`, or would wait.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from kafetrain.clock import Clock
from kafetrain.threads import LoopThread, Workers
from kafetrain.tracker.sequence import Sequencer

__all__ = [
    "ImpatientClock",
    "InstanceClock",
    "PausingCondition",
    "PausingEvent",
    "PausingSequencer",
    "SteppedExecutor",
    "SteppedThread",
    "SteppedWorkers",
    "pause",
    "result_of",
]

JOINING_FOR = 20
"""Steps of a thread that is joined; afterwards it has not ended in time."""

_here = threading.local()


def pause() -> None:
    """Let the others go on, where this is a `SteppedThread`; else nothing."""
    thread = _stepped_here()
    if thread is not None and thread.pauses_at_requests:
        thread.pause()


def result_of(future: Future[Any], timeout: float | None = None, *, wait: Callable[..., Any] = Future.result) -> Any:
    """In place of `Future.result`: a `SteppedThread` pauses until it has ended."""
    thread = _stepped_here()
    while thread is not None and not future.done():
        thread.pause()
    return wait(future, timeout)


class PausingCondition(threading.Condition):
    """A `SteppedThread` that waits for it pauses, without its lock."""

    def wait(self, timeout: float | None = None) -> bool:
        thread = _stepped_here()
        if thread is None:
            return super().wait(timeout)
        self.release()
        try:
            thread.pause()
        finally:
            self.acquire()
        return True


def _stepped_here() -> SteppedThread | None:
    return getattr(_here, "thread", None)


class _Ended(BaseException):
    """Its process was killed."""


class SteppedThread(LoopThread):
    """A `LoopThread` that runs only in `go_on`. `end` it, or it waits there for ever."""

    def __init__(
        self,
        loop: Any,
        name: str,
        on_error: Callable[[BaseException], None] | None = None,
        *,
        pauses_at_requests: bool = True,
    ) -> None:
        super().__init__(loop, name, on_error)
        self.pauses_at_requests = pauses_at_requests
        self._may_run, self._has_paused = threading.Semaphore(0), threading.Semaphore(0)
        self._is_killed = self._is_over = False

    def start(self) -> None:
        """Its first `go_on` does."""

    def go_on(self) -> None:
        """Until it pauses or ends."""
        if self._is_over:
            return
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._may_run.release()
        self._has_paused.acquire()

    def pause(self) -> None:
        self._has_paused.release()
        self._may_run.acquire()
        if self._is_killed:
            raise _Ended

    def join(self, timeout_s: float | None = None) -> bool:
        for _ in range(JOINING_FOR):
            self.go_on()
        return self._is_over

    def end(self) -> None:
        """As a kill does, wherever it is."""
        self._is_killed = True
        if self._thread.ident is not None:
            while not self._is_over:
                self.go_on()

    def _run(self) -> None:
        _here.thread = self
        try:
            super()._run()
        finally:
            self._is_over = True
            self._has_paused.release()

    def _step_on(self) -> None:
        while not self._stopping.is_set():
            self._loop.step()
            self.pause()

    def _fail(self, error: BaseException) -> None:
        if not self._is_killed:
            super()._fail(error)


class PausingSequencer(Sequencer):
    """Of a transaction, which waits for acknowledgements in its step."""

    def step(self) -> None:
        pause()
        super().step()


class PausingEvent(threading.Event):
    """To wait for it is to pause."""

    def wait(self, timeout: float | None = None) -> bool:
        pause()
        return self.is_set()


class SteppedWorkers(Workers):
    """Handler threads: `step` is one of them taking what was submitted first."""

    def __init__(self) -> None:
        super().__init__(0, "stepped")
        self.tasks: deque[Callable[[], None]] = deque()

    def submit(self, task: Callable[[], None]) -> None:
        self.tasks.append(task)

    def step(self) -> None:
        if self.tasks:
            self.tasks.popleft()()


class SteppedExecutor(Executor):
    """The thread for look-ups. It pauses where it would wait for others, and nowhere else. `end` it."""

    def __init__(self) -> None:
        self._tasks: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._is_running = False
        self._thread: SteppedThread | None = None

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._tasks.append((future, lambda: call(*args, **kwargs)))
        return future

    @property
    def is_idle(self) -> bool:
        """It has nothing to do."""
        return not self._tasks and not self._is_running

    def go_on(self) -> None:
        """With what it was handed first, until that is done or waits."""
        if self.is_idle:
            return
        if self._thread is None:
            self._thread = SteppedThread(self, "look-ups", pauses_at_requests=False)
        self._thread.go_on()

    def end(self) -> None:
        if self._thread is not None:
            self._thread.end()

    def step(self) -> None:
        """On its thread."""
        future, call = self._tasks.popleft()
        self._is_running = True
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)
        self._is_running = False

    def close(self) -> None:
        """There is nothing to close."""


class InstanceClock:
    """The cluster's clock. `on_look`: called before each look, so that time passes while a loop waits."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.on_look: Callable[[], None] | None = None
        self.ahead_s = 0.0
        """For this instance alone."""
        self.wall_off_ms = 0
        """Somebody has set the wall clock of its machine."""

    def monotonic(self) -> float:
        if self.on_look is not None:
            self.on_look()
        return self._clock.monotonic() + self.ahead_s

    def now_ms(self) -> int:
        return self._clock.now_ms() + self.wall_off_ms


class ImpatientClock:
    """Every look at it takes an hour: whoever waits by it gives up at once."""

    def __init__(self) -> None:
        self._looks = 0

    def monotonic(self) -> float:
        self._looks += 1
        return self._looks * 3600.0

    def now_ms(self) -> int:
        return int(self.monotonic() * 1000)
