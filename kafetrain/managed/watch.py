"""What the handlers of one consumer are doing: which run for too long, which succeeded, which failed.

A middleware, the outermost one, so that it sees what the consumer sees.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from kafetrain.clock import Clock
from kafetrain.errors import Pause
from kafetrain.handlers import future_of, has_no_outcome
from kafetrain.record import Handler, Record, TopicPartition

__all__ = ["HandlerWatch"]


class HandlerWatch:
    """`on_success` is called for a record that is further than any that succeeded before: one that is only delivered
    again after a restart proves nothing. `keep_failures`: a failed record counts as handled, and `failure` tells of it.

    Any thread calls it; another one may ask `overdue` meanwhile.
    """

    skips_successes = False

    def __init__(
        self, limit_s: float, clock: Clock, on_success: Callable[[], None], *, keep_failures: bool = False
    ) -> None:
        self._limit_s, self._clock, self._on_success = limit_s, clock, on_success
        self._keep_failures = keep_failures
        # By record: its place, and since when it runs. Each operation on it is atomic.
        self._running: dict[int, tuple[TopicPartition, float]] = {}
        self._furthest: dict[tuple[str, int], int] = {}
        self.failure: BaseException | None = None

    def __call__(self, record: Record, call_next: Handler) -> object:
        self._running[id(record)] = (TopicPartition(record.topic, record.partition), self._clock.monotonic())
        try:
            result = call_next(record)
            future = future_of(result)
        except Exception as error:
            self._running.pop(id(record), None)
            if not self._keep_failures or isinstance(error, Pause):
                raise
            self.failure = error
            return None
        except BaseException:
            self._running.pop(id(record), None)
            raise
        if future is None:
            self._succeeded(record)
            return result
        if not self._keep_failures:
            future.add_done_callback(partial(self._ended, record))
            return future
        kept = _Kept(future)
        future.add_done_callback(partial(self._ended_and_kept, record, kept))
        return kept

    def overdue(self) -> frozenset[TopicPartition]:
        """Partitions with a handler that has run for longer than the limit."""
        if not self._running:
            return frozenset()
        since = self._clock.monotonic() - self._limit_s
        return frozenset(place for place, began in tuple(self._running.values()) if began < since)

    def _succeeded(self, record: Record) -> None:
        self._running.pop(id(record), None)
        place = (record.topic, record.partition)
        if record.offset > self._furthest.get(place, -1):
            self._furthest[place] = record.offset
            self._on_success()

    def _ended(self, record: Record, future: Future[Any]) -> None:
        if has_no_outcome(future) or future.exception() is not None:
            self._running.pop(id(record), None)
        else:
            self._succeeded(record)

    def _ended_and_kept(self, record: Record, kept: _Kept, future: Future[Any]) -> None:
        self._ended(record, future)
        if future.cancelled():
            Future.cancel(kept)
        elif has_no_outcome(future) or isinstance(future.exception(), Pause):
            kept.set_exception(future.exception())
        else:
            if (error := future.exception()) is not None:
                self.failure = error
            kept.set_result(None)


class _Kept(Future[None]):
    """Succeeds when the handler's own future has ended, however it did; cancelling it means to cancel that one."""

    def __init__(self, followed: Future[Any]) -> None:
        super().__init__()
        self._followed = followed

    def cancel(self) -> bool:
        return self._followed.cancel()
