"""A thread for one connection: it does what it is given, one thing after the other.

An executor does that too, and takes as long for a call as a small commit does.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

__all__ = ["Worker"]

T = TypeVar("T")


class Worker:
    """Called from event loops."""

    def __init__(self, name: str) -> None:
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._is_ended = False

    async def run(self, work: Callable[[], T]) -> T:
        """What it returns or raises. Raises `RuntimeError` after `end`."""
        if self._is_ended:
            raise RuntimeError("it is closed")
        if self._thread.ident is None:
            self._thread.start()
        call = _Call(work)
        self._queue.put(call)
        result: T = await call.future
        return result

    def end(self) -> None:
        """When all that was given before is done."""
        self._is_ended = True
        self._queue.put(None)

    def _work(self) -> None:
        while (call := self._queue.get()) is not None:
            call.make()
            del call  # what it holds must not live until the next one comes


class _Call:
    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self._loop.create_future()

    def make(self) -> None:
        result: Any = None
        failure: BaseException | None = None
        try:
            result = self._work()
        except BaseException as error:
            failure = error
        try:
            self._loop.call_soon_threadsafe(self._settle, result, failure)
        except RuntimeError:  # its loop has ended, and with it whoever waited
            pass

    def _settle(self, result: Any, failure: BaseException | None) -> None:
        if self.future.done():  # whoever waited was cancelled
            return
        if failure is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(failure)
