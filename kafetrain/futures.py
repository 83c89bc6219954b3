"""Futures for the many that no thread waits for: a record that fails leaves a dozen behind.

The standard one is a condition, a lock and three lists beside itself, all for a thread that may wait. To make them, and
to have the garbage collector look through them, is what most of a redirect would cost.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from typing import TypeVar

from loguru import logger

__all__ = ["LightFuture", "copy_outcome", "plain"]

T = TypeVar("T")

_mutex = threading.Lock()
"""Of all of them: it is held for a few instructions, and nothing is called inside."""


class LightFuture(Future[T]):
    """A future that is under way: it cannot be cancelled. Any thread.

    Callbacks are called in their order, by whoever ends it. `concurrent.futures.wait` and `as_completed` know the
    standard one only: what leaves the library is `plain`.
    """

    _callbacks: tuple[Callable[[Future[T]], object], ...] | None

    def __init__(self) -> None:  # not the standard one's: it makes what this one does without
        self._callbacks = ()
        self._value: T | None = None
        self._error: BaseException | None = None

    def done(self) -> bool:
        return self._callbacks is None

    def running(self) -> bool:
        return self._callbacks is not None

    def cancel(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return False

    def set_running_or_notify_cancel(self) -> bool:
        return True

    def set_result(self, result: T) -> None:
        self._end(result, None)

    def set_exception(self, exception: BaseException | None) -> None:
        self._end(None, exception)

    def result(self, timeout: float | None = None) -> T:
        if self._callbacks is not None:
            self._wait(timeout)
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # None only where T has it

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if self._callbacks is not None:
            self._wait(timeout)
        return self._error

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        with _mutex:
            if self._callbacks is not None:
                self._callbacks = (*self._callbacks, fn)
                return
        self._call(fn)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'running' if self._callbacks is not None else 'done'}>"

    def _end(self, result: T | None, error: BaseException | None) -> None:
        with _mutex:
            callbacks = self._callbacks
            if callbacks is None:
                raise InvalidStateError(f"{self!r} has ended already")
            self._value, self._error, self._callbacks = result, error, None
        for fn in callbacks:
            self._call(fn)

    def _call(self, fn: Callable[[Future[T]], object]) -> None:
        try:
            fn(self)
        except Exception as error:
            logger.opt(exception=error).error("a future's callback raised {}", type(error).__name__)

    def _wait(self, timeout: float | None) -> None:
        over = threading.Event()
        self.add_done_callback(lambda _: over.set())
        if not over.wait(timeout):
            raise FutureTimeoutError


def plain(future: Future[T]) -> Future[T]:
    """A standard future that ends as this one does."""
    followed: Future[T] = Future()
    followed.set_running_or_notify_cancel()
    future.add_done_callback(partial(copy_outcome, into=followed))
    return followed


def copy_outcome(ended: Future[T], into: Future[T]) -> None:
    """A result, or an error."""
    if (error := ended.exception()) is None:
        into.set_result(ended.result())
    else:
        into.set_exception(error)
