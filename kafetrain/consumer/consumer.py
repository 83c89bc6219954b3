"""Layer 3: a consumer that runs handlers in key order, and keeps polling whatever they do."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from kafetrain.client.ports import Client
from kafetrain.clock import Clock, SystemClock
from kafetrain.consumer.middleware import ErrorHandlingMiddleware, compose_for_successes
from kafetrain.consumer.source_loop import SourceLoop
from kafetrain.consumer.stream import Stream
from kafetrain.errors import ConfigurationError
from kafetrain.handlers import check_handler
from kafetrain.record import Handler, Middleware, Record
from kafetrain.settings import Settings
from kafetrain.threads import LoopThread, Workers
from kafetrain.tracker import ErrorTracker
from kafetrain.tracker.hooks import OnDeadKey, OnDeadLetter
from kafetrain.tracker.state import Side

if TYPE_CHECKING:
    from kafetrain.consumer.resilient import ResilientConsumer

__all__ = ["KafkaConsumer", "stopped_by_signals", "topic_list"]


class KafkaConsumer:
    """Consumes topics with `settings.concurrency` handler threads; records of a key run one after the other.

    Without middleware a failing handler stops it with the handler's error, and nothing past that record is committed.
    With `ErrorHandlingMiddleware` failures go through a tracker instead. One consumer consumes once at a time.
    `client` and `clock` are for tests.
    """

    def __init__(self, settings: Settings, *, client: Client | None = None, clock: Clock | None = None) -> None:
        self._settings = settings
        self._client = client
        self._clock: Clock = clock or SystemClock()
        self._middlewares: tuple[Middleware, ...] = ()
        self._thread: LoopThread | None = None
        self._workers: Workers | None = None
        self._stream: Stream | None = None
        self._stop_asked = threading.Event()

    @staticmethod
    def resilient(
        settings: Settings,
        topics: str | Sequence[str],
        handler: Handler,
        *,
        middlewares: Sequence[Middleware] = (),
        on_dead_letter: OnDeadLetter | None = None,
        on_dead_key: OnDeadKey | None = None,
        client: Client | None = None,
    ) -> ResilientConsumer:
        """All three layers in one object that owns them: tracker, retry manager, consumer. See `ResilientConsumer`."""
        from kafetrain.consumer.resilient import ResilientConsumer

        return ResilientConsumer(
            settings,
            topics,
            handler,
            middlewares,
            on_dead_letter=on_dead_letter,
            on_dead_key=on_dead_key,
            client=client,
        )

    def with_middlewares(self, *middlewares: Middleware) -> KafkaConsumer:
        """Add middlewares; the first is the outermost. Returns the consumer itself.

        Raises `ConfigurationError` for what is not callable, and for a second `ErrorHandlingMiddleware`.
        """
        for middleware in middlewares:
            check_handler(middleware, "middleware")
        together = self._middlewares + middlewares
        if sum(isinstance(m, ErrorHandlingMiddleware) for m in together) > 1:
            raise ConfigurationError("two ErrorHandlingMiddlewares: a failure can be handled once; keep one of them")
        self._middlewares = together
        return self

    def consume(self, topics: str | Sequence[str], handler: Handler) -> None:
        """Consume until `stop`. SIGINT and SIGTERM stop it where this is called in the main thread.

        Returns after running handlers have ended and offsets are committed, bounded by `shutdown_timeout`. Raises what
        stopped it: the handler's own error where no middleware handles it, a `FatalError`, a `ClientError`.
        """
        self.start(topics, handler)
        with stopped_by_signals(self.request_stop):
            self.wait()

    def start(
        self,
        topics: str | Sequence[str],
        handler: Handler,
        on_fatal: Callable[[BaseException], None] | None = None,
    ) -> None:
        """As `consume`, in the background: returns once the consumer is built. `stop` it.

        `on_fatal` is called with what ended it, on its own thread.
        """
        check_handler(handler)
        names = topic_list(topics)
        if self._thread is not None:
            raise ConfigurationError("this consumer consumes already; stop() it first, or use another one")
        tracker = self._tracker()
        if tracker is not None:
            for topic in names:
                tracker.state.topic(topic)  # NotTrackedError before anything runs
            tracker.track_by_assignment(Side.SOURCE)
            handler = tracker.guard(handler)  # innermost: middlewares may stay uncalled for a success
        consumer = self._built_client().group_consumer(
            self._settings.group_id, auto_offset_reset=self._settings.auto_offset_reset
        )
        workers = Workers(self._settings.concurrency, "kafetrain-handler")
        try:
            composed = partial(compose_for_successes, self._middlewares, handler)
            loop = SourceLoop(names, composed, consumer, workers, self._settings, self._clock, tracker)
        except BaseException:
            consumer.close()
            raise
        workers.start()
        self._workers = workers
        self._stop_asked.clear()
        self._thread = LoopThread(loop, f"kafetrain-{'-'.join(names)}", on_fatal)
        self._thread.start()

    def wait(self) -> None:
        """Until it ends. Raises what stopped it."""
        while not self.ended(0.2):
            pass
        self.stop()

    def ended(self, timeout_s: float = 0.0) -> bool:
        """Has it ended, or been asked to stop? Waits a little for that."""
        thread = self._thread
        return thread is None or thread.join(timeout_s) or self._stop_asked.is_set()

    def stream(self, topics: str | Sequence[str]) -> Generator[Record, None, None]:
        """Pull style: the records that may run now, one by one, retries that are due included.

        A record is complete when the next one is asked for; `fail` makes it a failure instead; leaving the loop by an
        exception or `break` leaves it incomplete. Polling goes on behind. Retries need an `ErrorHandlingMiddleware`:
        without one, `fail` ends the stream with its error.
        """
        if self._stream is not None:
            raise ConfigurationError("this consumer streams already; leave that loop first, or use another consumer")
        stream = Stream(self, topic_list(topics), self._tracker(), self._middlewares)
        self._stream = stream
        try:
            yield from stream
        finally:
            self._stream = None
            stream.close()

    def fail(self, error: BaseException) -> None:
        """The current record of `stream` failed with `error`. `ConfigurationError` where there is none."""
        if self._stream is None:
            raise ConfigurationError("fail() is for the loop over stream(): there is no current record")
        self._stream.fail(error)

    def request_stop(self) -> None:
        """Ask it to stop, and return at once. Any thread; also from a handler."""
        self._stop_asked.set()
        thread, stream = self._thread, self._stream
        if thread is not None:
            thread.request_stop()
        if stream is not None:
            stream.request_stop()

    def stop(self) -> None:
        """Stop and wait, bounded by `shutdown_timeout`. Raises what stopped it before. Any thread.

        Called from a handler, or inside of the loop over `stream`, it only asks: what runs must end first.
        """
        self.request_stop()
        thread, workers = self._thread, self._workers
        if thread is None or self.called_by_handler:
            return
        if self._stream is not None and not self._stream.closing:
            return
        deadline = time.monotonic() + self._settings.shutdown_timeout.total_seconds() + 5.0
        thread.join(max(0.0, deadline - time.monotonic()))
        if workers is not None:
            workers.request_stop()
            workers.join(max(0.0, min(1.0, deadline - time.monotonic())))
        if self._thread is thread:
            self._thread = self._workers = None
        thread.check()

    @property
    def called_by_handler(self) -> bool:
        """Is this thread one of its handler threads?"""
        workers = self._workers
        return workers is not None and workers.is_mine()

    def check(self) -> None:
        """Raise what ended the consumer, if something did."""
        if self._thread is not None:
            self._thread.check()

    def _tracker(self) -> ErrorTracker | None:
        return next((m.tracker for m in self._middlewares if isinstance(m, ErrorHandlingMiddleware)), None)

    def _built_client(self) -> Client:
        if self._client is None:
            tracker = self._tracker()
            if tracker is not None:
                return tracker.client
            from kafetrain.client.choose import client_for

            self._client = client_for(self._settings)
        return self._client


def topic_list(topics: str | Sequence[str]) -> list[str]:
    """One topic or several, as a list without repetitions. `ConfigurationError` for none, or what is no name."""
    names = [topics] if isinstance(topics, str) else list(topics)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ConfigurationError(f"topics must be one topic name or a sequence of them, not {topics!r}")
    return list(dict.fromkeys(names))


class stopped_by_signals:
    """While inside: SIGINT and SIGTERM call `request_stop`, on a thread of its own. Only the main thread may do that;
    elsewhere nothing.
    """

    def __init__(self, request_stop: Callable[[], None]) -> None:
        self._request_stop = request_stop
        self._former: dict[int, Any] = {}
        # Python runs a signal's handler in the main thread, wherever that is: also where it holds the lock that
        # request_stop is about to take, of an Event it waits for, say. SimpleQueue.put may be interrupted by itself.
        self._asked: SimpleQueue[bool] = SimpleQueue()
        self._thread = threading.Thread(target=self._pass_on, name="kafetrain-signals", daemon=True)

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._thread.start()
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, lambda *_: self._asked.put(True))

    def __exit__(self, *_: object) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)
        if self._former:
            self._asked.put(False)
            self._thread.join()

    def _pass_on(self) -> None:
        while self._asked.get():
            self._request_stop()
