"""Stand-ins for threads: what they are handed waits until a test lets it run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from kafetrain.clock import Clock
from kafetrain.threads import Workers

__all__ = ["InstanceClock", "SteppedExecutor", "SteppedWorkers"]


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
    """The thread for look-ups. `prepare` is called before each: what it would wait for."""

    def __init__(self, prepare: Callable[[], None]) -> None:
        self._prepare = prepare
        self._tasks: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._tasks.append((future, lambda: call(*args, **kwargs)))
        return future

    def step(self) -> None:
        if not self._tasks:
            return
        future, call = self._tasks.popleft()
        self._prepare()
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)


class InstanceClock:
    """The cluster's clock. `on_look`: called before each look, so that time passes while a loop waits."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.on_look: Callable[[], None] | None = None
        self.ahead_s = 0.0
        """For this instance alone."""

    def monotonic(self) -> float:
        if self.on_look is not None:
            self.on_look()
        return self._clock.monotonic() + self.ahead_s

    def now_ms(self) -> int:
        return self._clock.now_ms()
