"""Handlers without retry topics: what fails runs again in its place, and nothing past it is committed.

A middleware. The partition waits for the backoff, and other partitions go on; a restart is delivered the record again.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from loguru import logger

from kafetrain.errors import Pause
from kafetrain.handlers import future_of, has_no_outcome
from kafetrain.record import BackoffPolicy, Handler, Record

__all__ = ["InPlace"]


class InPlace:
    """`skip_failed`: a record that fails counts as handled instead, and is lost. Any thread."""

    def __init__(self, backoff: BackoffPolicy, *, skip_failed: bool) -> None:
        self._backoff, self._skip_failed = backoff, skip_failed
        # Of records that have failed and not succeeded. A key's records run one after the other, so no two threads
        # touch one entry at a time.
        self._failures: dict[tuple[str, int, int], int] = {}

    def __call__(self, record: Record, call_next: Handler) -> object:
        try:
            future = future_of(result := call_next(record))
        except Pause:
            raise
        except Exception as error:
            self._failed(record, error)
            return None
        if future is None:
            self._ended(record)
            return result
        return _Followed(future, lambda done: self._settle(record, done))

    def _settle(self, record: Record, done: Future[Any]) -> BaseException | None:
        error = done.exception()
        if error is None:
            self._ended(record)
        elif isinstance(error, Exception) and not isinstance(error, Pause):
            try:
                self._failed(record, error)
            except Pause as pause:
                return pause
            return None
        return error

    def _ended(self, record: Record) -> None:
        if self._failures:
            self._failures.pop((record.topic, record.partition, record.offset), None)

    def _failed(self, record: Record, error: Exception) -> None:
        place = (record.topic, record.partition, record.offset)
        failures = self._failures[place] = self._failures.get(place, 0) + 1
        log = logger.bind(topic=record.topic, partition=record.partition, offset=record.offset, attempt=failures)
        if self._skip_failed:
            del self._failures[place]
            log.warning("handler raised {}: the record is committed and lost", type(error).__name__)
            return
        wait = self._backoff(failures)
        log.warning("handler raised {}: it runs again in {} s", type(error).__name__, wait.total_seconds())
        raise Pause(wait) from error


class _Followed(Future[None]):
    """Ends as `outcome` says when the handler's own future has; cancelling it means to cancel that one."""

    def __init__(self, followed: Future[Any], outcome: Callable[[Future[Any]], BaseException | None]) -> None:
        super().__init__()
        self._followed, self._outcome = followed, outcome
        followed.add_done_callback(self._follow)

    def cancel(self) -> bool:
        return self._followed.cancel()

    def _follow(self, done: Future[Any]) -> None:
        if done.cancelled():
            super().cancel()
        elif has_no_outcome(done):
            self.set_exception(done.exception())
        elif (error := self._outcome(done)) is None:
            self.set_result(None)
        else:
            self.set_exception(error)
