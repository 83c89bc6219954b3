"""Pull style: the generator's caller is the handler.

The handler that the loops below run only hands the record over and returns a future, so nothing blocks while the
caller thinks. A key stands still until its future is done, which keeps the order. Records that a rebalance takes away
before the caller saw them are called off by cancelling their future.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from kafetrain.consumer.middleware import ErrorHandlingMiddleware, compose
from kafetrain.errors import ConfigurationError
from kafetrain.handlers import NoOutcome
from kafetrain.record import Middleware, Record
from kafetrain.retry import RetryManager
from kafetrain.tracker import ErrorTracker

if TYPE_CHECKING:
    from kafetrain.consumer.consumer import KafkaConsumer

__all__ = ["Stream"]

POLL_S = 0.1


class Stream:
    """One pass of `KafkaConsumer.stream`. The caller's thread iterates; `request_stop` may come from any."""

    def __init__(
        self,
        consumer: KafkaConsumer,
        topics: Sequence[str],
        tracker: ErrorTracker | None,
        middlewares: Sequence[Middleware],
    ) -> None:
        self._consumer, self._tracker = consumer, tracker
        self._handed: SimpleQueue[tuple[Record, Future[None]]] = SimpleQueue()
        self._current: Future[None] | None = None
        self._error: BaseException | None = None
        self._stopping = False
        self.closing = False
        self._manager: RetryManager | None = None
        consumer.start(topics, self._hand_over)
        try:
            if tracker is not None:
                around = [m for m in middlewares if not isinstance(m, ErrorHandlingMiddleware)]
                guarded = compose(around, tracker.guard(self._hand_over))
                self._manager = RetryManager(tracker, guarded, is_guarded=True)
                for topic in topics:
                    if topic not in tracker.state.retry_consumers:  # else its owner runs the retries
                        self._manager.start_retry_consumer(topic)
        except BaseException:
            self.close()
            raise

    def _hand_over(self, record: Record) -> Future[None]:
        future: Future[None] = Future()
        self._handed.put((record, future))
        return future

    def __iter__(self) -> Iterator[Record]:
        while not self._stopping:
            self._check()
            try:
                record, future = self._handed.get(timeout=POLL_S)
            except Empty:
                if self._consumer.ended():  # stopped before this stream could be told
                    break
                continue
            if not future.set_running_or_notify_cancel():
                continue  # called off: its partition went away
            self._current, self._error = future, None
            yield record
            self._settle()
        self._check()

    def fail(self, error: BaseException) -> None:
        """The record that was yielded last has failed."""
        if self._current is None:
            raise ConfigurationError("fail() needs a current record: call it inside of the loop over stream()")
        if not isinstance(error, BaseException):
            raise ConfigurationError(f"fail() needs an exception, not {type(error).__name__}")
        self._error = error

    def request_stop(self) -> None:
        """The loop ends after the current record."""
        self._stopping = True

    def close(self) -> None:
        """Stop both sides. A record that was not settled stays incomplete: it has no outcome."""
        self.closing = True
        if self._manager is not None:
            self._manager.request_stop()
        self._consumer.request_stop()
        if self._current is not None:
            self._current.set_exception(NoOutcome())  # left by an exception or break
            self._current = None
        self._call_off()
        try:
            if self._manager is not None:
                self._manager.stop()
        finally:
            self._consumer.stop()

    def _settle(self) -> None:
        current, self._current = self._current, None
        if current is None:
            return
        if self._error is None:
            current.set_result(None)
        else:
            current.set_exception(self._error)

    def _call_off(self) -> None:
        """What nobody will look at any more must not be waited for."""
        try:
            while True:
                _, future = self._handed.get_nowait()
                if future.set_running_or_notify_cancel():
                    future.set_exception(NoOutcome())  # cancelled by us it would look like the handler's doing
        except Empty:
            pass

    def _check(self) -> None:
        self._consumer.check()
        if self._manager is not None:
            self._manager.check()
