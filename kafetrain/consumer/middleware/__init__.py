"""Middleware: what stands around a handler. The first is the outermost."""

from __future__ import annotations

from collections.abc import Iterable

from kafetrain.consumer.middleware.error_handling import ErrorHandlingMiddleware
from kafetrain.consumer.middleware.logging import LoggingMiddleware
from kafetrain.record import Handler, Middleware, Record

__all__ = ["ErrorHandlingMiddleware", "LoggingMiddleware", "compose"]


def compose(middlewares: Iterable[Middleware], handler: Handler) -> Handler:
    """`handler` inside of the middlewares."""
    for middleware in reversed(tuple(middlewares)):
        handler = _around(middleware, handler)
    return handler


def _around(middleware: Middleware, call_next: Handler) -> Handler:
    def call(record: Record) -> object:
        return middleware(record, call_next)

    return call
