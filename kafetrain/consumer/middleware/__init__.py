"""Middleware: what stands around a handler. The first is the outermost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kafetrain.consumer.middleware.error_handling import ErrorHandlingMiddleware
from kafetrain.consumer.middleware.logging import LoggingMiddleware
from kafetrain.handlers import NoOutcome
from kafetrain.record import Handler, Middleware, Record
from kafetrain.tracker.state import Claim

__all__ = ["ErrorHandlingMiddleware", "LoggingMiddleware", "compose", "compose_for_successes"]


def compose(middlewares: Iterable[Middleware], handler: Handler) -> Handler:
    """`handler` inside of the middlewares."""
    for middleware in reversed(tuple(middlewares)):
        handler = _around(middleware, handler)
    return handler


def compose_for_successes(middlewares: Sequence[Middleware], handler: Handler, claim: Claim | None) -> Handler:
    """As `compose`, for a partition, without a call of middlewares that have nothing to do.

    A middleware with a true attribute `skips_successes` asks not to be called for a record whose handler simply returns
    None while the partition has no locks. Where all are such, the handler runs first, and they are called with what
    came of it, should it be anything else. `claim`: on the partition; None where nobody keeps locks.
    """
    full = compose(middlewares, handler)
    if not middlewares or not all(getattr(middleware, "skips_successes", False) for middleware in middlewares):
        return full

    def call(record: Record) -> object:
        if claim is not None and not claim.is_calm():
            return full(record)
        try:
            result = handler(record)
            if result is None:
                return None
        except Exception as error:
            failed = _Failed(error, claim)
            try:
                return compose(middlewares, failed)(record)
            finally:
                failed.error = None  # its traceback leads back here: nothing but the garbage collector would find it
        return compose(middlewares, lambda _: result)(record)

    return call


class _Failed:
    """Stands for the handler, which has failed."""

    def __init__(self, error: Exception, claim: Claim | None) -> None:
        self.error: Exception | None = error
        self._claim = claim

    def __call__(self, _: Record) -> object:
        # Looked at behind the middlewares, which may have found a new claim: should the partition have gone and
        # come back while the handler ran, the record is not this run's any more.
        if self._claim is not None and self._claim.released:
            raise NoOutcome
        if self.error is not None:
            raise self.error
        return None


def _around(middleware: Middleware, call_next: Handler) -> Handler:
    def call(record: Record) -> object:
        return middleware(record, call_next)

    return call
