"""Middleware: what stands around a handler. The first is the outermost."""

from __future__ import annotations

from collections.abc import Sequence

from kafetrain.consumer.middleware.error_handling import ErrorHandlingMiddleware
from kafetrain.consumer.middleware.logging import LoggingMiddleware
from kafetrain.consumer.middleware.successes import SuccessesFirst, compose
from kafetrain.record import Handler, Middleware
from kafetrain.tracker.state import Claim

__all__ = ["ErrorHandlingMiddleware", "LoggingMiddleware", "SuccessesFirst", "compose", "compose_for_successes"]


def compose_for_successes(middlewares: Sequence[Middleware], handler: Handler, claim: Claim | None) -> Handler:
    """As `compose`, for a partition, without a call of middlewares that have nothing to do.

    A middleware with a true attribute `skips_successes` asks not to be called for a record whose handler simply returns
    None while the partition has no locks. `claim`: on the partition; None where nobody keeps locks.
    """
    if all(getattr(middleware, "skips_successes", False) for middleware in middlewares):
        return SuccessesFirst(middlewares, handler, claim)
    return compose(middlewares, handler)
