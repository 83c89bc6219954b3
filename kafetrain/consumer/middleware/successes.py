"""The healthy path: records that simply succeed pass middlewares that have nothing to do for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from kafetrain.handlers import NoOutcome
from kafetrain.record import Handler, Middleware, Record
from kafetrain.tracker.state import Claim

__all__ = ["Run", "SuccessesFirst", "Worker", "compose"]


def compose(middlewares: Iterable[Middleware], handler: Handler) -> Handler:
    """`handler` inside of the middlewares."""
    for middleware in reversed(tuple(middlewares)):
        handler = _around(middleware, handler)
    return handler


class _NeverLocked:
    """In place of a `Claim` where nobody keeps locks."""

    ready, released = True, False
    writing = kept = ()

    def __init__(self) -> None:
        self.locks = self.chains = self

    def may_run(self, record: Record) -> bool:
        return True


class SuccessesFirst:
    """The handler of one partition. It runs first, and middlewares are called with what came of it, should that be
    anything but None; where there is a lock of the record's key, they are called before it, as always.

    `claim`: on the partition; None where nobody keeps locks.
    """

    def __init__(self, middlewares: Sequence[Middleware], handler: Handler, claim: Claim | None) -> None:
        self._middlewares, self._handler = middlewares, handler
        self._claim: Any = claim or _NeverLocked()
        self._full = compose(middlewares, self._run_ours)

    def __call__(self, record: Record) -> object:
        if not self._claim.may_run(record):
            return self._full(record)
        try:
            result = self._handler(record)
        except Exception as error:
            return self._after_failure(error)(record)
        return None if result is None else self._after(result)(record)

    def run(self, records: Sequence[Record], run: Run, worker: Worker) -> Handler | None:
        """Run these from `run.done` on, while each simply succeeds, and say so in `run.done`.

        Returns what to call for the next one instead: its handler has run, or it is one for all middlewares. None: all
        have run, or the worker leaves.
        """
        claim, handler = self._claim, self._handler
        try:
            for at in range(run.done, len(records)):
                # What `may_run` asks, as far as it can be asked of all records together, spelled out: a call for each
                # would cost as much as all the rest.
                any_locks = claim.writing or claim.locks.chains.kept
                if (any_locks or claim.released or not claim.ready) and not claim.may_run(records[at]):
                    return self._full
                if worker.leaving:
                    return None
                if (result := handler(records[at])) is not None:
                    return self._after(result)
                run.done = at + 1
        except Exception as error:
            return self._after_failure(error)
        return None

    def _run_ours(self, record: Record) -> object:
        # The middlewares may have waited, and found a new claim: should the partition have gone and come back
        # meanwhile, the record is delivered anew.
        if self._claim.released:
            raise NoOutcome
        return self._handler(record)

    def _after(self, result: object) -> Handler:
        return compose(self._middlewares, lambda _: result)

    def _after_failure(self, error: Exception) -> Handler:
        return _AfterFailure(self._middlewares, error, self._claim)


class _AfterFailure:
    """The middlewares around a handler that has failed.

    The error's traceback leads back here. So it is forgotten at the end: else nothing but the garbage collector would
    find the two.
    """

    def __init__(self, middlewares: Sequence[Middleware], error: Exception, claim: Any) -> None:
        self._middlewares, self._claim = middlewares, claim
        self._error: Exception | None = error

    def __call__(self, record: Record) -> object:
        try:
            return compose(self._middlewares, self._fail)(record)
        finally:
            self._error = None

    def _fail(self, _: Record) -> object:
        # Looked at behind the middlewares, which may have found a new claim: should the partition have gone and
        # come back while the handler ran, the record is not this run's any more.
        if self._claim.released or self._error is None:
            raise NoOutcome
        raise self._error


class Run(Protocol):
    """How far a batch has come."""

    done: int
    """Its records below this index are complete."""


class Worker(Protocol):
    """Who runs a batch."""

    leaving: bool
    """It is to begin with no further record. Set by another thread."""


def _around(middleware: Middleware, call_next: Handler) -> Handler:
    def call(record: Record) -> object:
        return middleware(record, call_next)

    return call
