"""What a handler may be, and what its result means."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from kafetrain.errors import ConfigurationError, NotRetriableError

__all__ = ["Following", "NoOutcome", "check_handler", "future_of", "has_no_outcome"]


class NoOutcome(BaseException):
    """Ends the future of a record that was left unfinished: neither success nor failure, no attempt counts."""


class Following(Future[Any]):
    """What comes of a future that a handler returned: cancelling it means to cancel that one. The maker ends it."""

    def __init__(self, followed: Future[Any]) -> None:
        super().__init__()
        self._followed = followed

    def cancel(self) -> bool:
        return self._followed.cancel()

    def called_off(self) -> None:
        """The other one was cancelled."""
        super().cancel()


def has_no_outcome(future: Future[Any]) -> bool:
    """Of a future that is done: was it called off, or its record left unfinished?"""
    return future.cancelled() or isinstance(future.exception(), NoOutcome)


def check_handler(handler: object, what: str = "handler") -> None:
    """Raises `ConfigurationError` for what can never work, before any record is consumed."""
    if not callable(handler):
        raise ConfigurationError(
            f"{what} must be callable with one record, not {type(handler).__name__}: pass a function, a bound method "
            f"or an object with __call__"
        )
    call: Callable[..., Any] = handler
    if inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None)):  # noqa: B004 - its kind, not its presence
        raise ConfigurationError(
            f"{what} {getattr(handler, '__qualname__', type(handler).__name__)} is a coroutine function, and handlers "
            f"run in threads. Make it a plain function; for async code, start an event loop in a thread and return "
            f"asyncio.run_coroutine_threadsafe(...): a returned concurrent.futures.Future completes the record when "
            f"it is done"
        )


def future_of(result: object) -> Future[Any] | None:
    """The future that a handler's result is, or None for a result that means success.

    Raises `NotRetriableError` for another kind of awaitable: nobody would ever await it, so the work was not done.
    """
    if isinstance(result, Future):
        return result
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise NotRetriableError(
            f"the handler returned a {type(result).__name__}, which nobody awaits: return a "
            f"concurrent.futures.Future, or nothing"
        )
    return None
