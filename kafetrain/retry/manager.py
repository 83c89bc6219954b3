"""Layer 2: runs retries, each when it is due and when everything before it of its key has ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from kafetrain.errors import ConfigurationError
from kafetrain.handlers import check_handler
from kafetrain.record import Handler
from kafetrain.retry.loop import RetryLoop
from kafetrain.threads import LoopThread, Workers, stop_at_exit
from kafetrain.tracker import ErrorTracker
from kafetrain.tracker.state import Side

__all__ = ["RetryManager"]


class RetryManager:
    """Owns the retry consumers of a tracker's topics: one thread each, and `settings.concurrency` handler threads.

    The handler sees a retried record as its source record, with `x-retry-*` headers behind its own. Any thread may
    call this; `stop` it, or use `with`. `on_fatal` is called with what ended a retry consumer, on that thread.
    `is_guarded`: the handler has the tracker's `guard` inside of it, behind middlewares.
    """

    def __init__(
        self,
        tracker: ErrorTracker,
        handler: Handler,
        on_fatal: Callable[[BaseException], None] | None = None,
        *,
        is_guarded: bool = False,
    ) -> None:
        check_handler(handler)
        if on_fatal is not None and not callable(on_fatal):
            raise ConfigurationError(f"on_fatal must be callable with an exception, not {type(on_fatal).__name__}")
        self._tracker, self._on_fatal = tracker, on_fatal
        self._handler = handler if is_guarded else tracker.guard(handler)
        self._threads: dict[str, LoopThread] = {}
        self._workers: Workers | None = None
        self._background: ThreadPoolExecutor | None = None
        self._asked_at: float | None = None
        """When it was first asked to stop: `stop` is bounded from then on, so that two of them wait side by side."""
        tracker.track_by_assignment(Side.RETRY)

    def start_retry_consumer(self, topic: str) -> None:
        """Consume the retry topic of `topic` in a thread of its own. Calling it again for a topic does nothing.

        Raises: `NotTrackedError` before the tracker's `start_tracking`, `ClientError` where no broker answers. A
        failed start leaves nothing running.
        """
        if topic in self._threads:
            return
        prepared = self._tracker.state.topic(topic)
        if topic in self._tracker.state.retry_consumers:
            raise ConfigurationError(
                f"the retry topic of {topic} is consumed already by another RetryManager of this tracker: one is enough"
            )
        consumer = self._tracker.client.group_consumer(
            self._tracker.get_retry_group(), auto_offset_reset="earliest", role=topic
        )
        try:
            loop = RetryLoop(
                prepared,
                self._handler,
                consumer,
                self._started_workers(),
                self._started_background(),
                self._tracker.parts,
                self._tracker.state,
                self._tracker.client.reader,
            )
        except BaseException:
            consumer.close()
            raise
        thread = LoopThread(loop, f"kafetrain-retry-{topic}", self._on_fatal)
        self._threads, self._asked_at = {**self._threads, topic: thread}, None  # others look through it meanwhile
        self._tracker.state.retry_consumers.add(topic)
        thread.start()

    def request_stop(self) -> None:
        """Ask all threads to stop, and return at once."""
        self._asked_at = self._asked_at or time.monotonic()
        for thread in self._threads.values():
            thread.request_stop()

    def stop(self) -> None:
        """Start nothing more, let running handlers end, commit, leave the group; bounded by `shutdown_timeout`.

        What did not end counts no attempt. Raises what ended a retry consumer before. Calling it again does nothing.
        Called from a handler it only asks.
        """
        self.request_stop()
        if self.called_by_handler:
            return  # what runs must end first
        # A loop needs its own timeout for the handlers, and a little more to commit and to leave the group.
        asked_at, self._asked_at = self._asked_at or time.monotonic(), None
        deadline = asked_at + self._tracker.settings.shutdown_timeout.total_seconds() + 5.0
        threads, self._threads = self._threads, {}
        for topic, thread in threads.items():
            thread.join(max(0.0, deadline - time.monotonic()))
            self._tracker.state.retry_consumers.discard(topic)
        workers, self._workers = self._workers, None
        if workers is not None:
            workers.request_stop()
            workers.join(max(0.0, min(1.0, deadline - time.monotonic())))
        background, self._background = self._background, None
        if background is not None:
            background.shutdown(wait=False, cancel_futures=True)
        for thread in threads.values():
            thread.check()

    @property
    def called_by_handler(self) -> bool:
        """Is this thread one of its handler threads?"""
        return self._workers is not None and self._workers.is_mine()

    def check(self) -> None:
        """Raise what ended a retry consumer or the tracker, if something did."""
        self._tracker.check()
        for thread in self._threads.values():
            thread.check()

    def __enter__(self) -> RetryManager:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        stop_at_exit(self.stop, error)

    def _started_workers(self) -> Workers:
        if self._workers is None:
            self._workers = Workers(self._tracker.settings.concurrency, "kafetrain-retry-handler")
            self._workers.start()
        return self._workers

    def _started_background(self) -> ThreadPoolExecutor:
        if self._background is None:
            self._background = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kafetrain-retry-lookups")
        return self._background
