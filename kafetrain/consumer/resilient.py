"""All three layers in one object: what most applications want."""

from __future__ import annotations

from collections.abc import Sequence

from kafetrain.client.ports import Client
from kafetrain.consumer.consumer import KafkaConsumer, stopped_by_signals, topic_list
from kafetrain.consumer.middleware import ErrorHandlingMiddleware, compose
from kafetrain.errors import ConfigurationError
from kafetrain.handlers import check_handler
from kafetrain.record import Handler, Middleware
from kafetrain.retry import RetryManager
from kafetrain.settings import Settings
from kafetrain.threads import stop_at_exit
from kafetrain.tracker import ErrorTracker
from kafetrain.tracker.hooks import OnDeadKey, OnDeadLetter
from kafetrain.tracker.state import Side

__all__ = ["ResilientConsumer"]


class ResilientConsumer:
    """A tracker, a retry manager and a consumer that share it, started and stopped together.

    `run` blocks; `with` starts it in the background and stops it at the end. `middlewares` stand around the handler on
    both sides, outside of the error handling on the source side. The hooks are the tracker's. Any thread may call it.
    `client` is for tests.
    """

    def __init__(
        self,
        settings: Settings,
        topics: str | Sequence[str],
        handler: Handler,
        middlewares: Sequence[Middleware] = (),
        *,
        on_dead_letter: OnDeadLetter | None = None,
        on_dead_key: OnDeadKey | None = None,
        client: Client | None = None,
    ) -> None:
        check_handler(handler)
        self._settings, self._topics, self._handler = settings, topic_list(topics), handler
        if any(isinstance(middleware, ErrorHandlingMiddleware) for middleware in middlewares):
            raise ConfigurationError("resilient() has its own ErrorHandlingMiddleware; leave yours out")
        self.tracker = ErrorTracker(settings, on_dead_letter=on_dead_letter, on_dead_key=on_dead_key, client=client)
        """For `locks`; its life is this object's."""
        guarded = compose(middlewares, self.tracker.guard(handler))
        self._manager = RetryManager(self.tracker, guarded, on_fatal=self._one_ended, is_guarded=True)
        self._consumer = KafkaConsumer(settings).with_middlewares(*middlewares, ErrorHandlingMiddleware(self.tracker))
        self._started = False
        self._ended = False

    def start(self) -> None:
        """Start all layers and return. Where one fails to start, nothing is left running. Again: nothing."""
        if self._started:
            return
        self._started, self._ended = True, False
        try:
            self.tracker.track_by_assignment(Side.SOURCE)
            for topic in self._topics:
                self.tracker.start_tracking(topic)
            for topic in self._topics:
                self._manager.start_retry_consumer(topic)
            self._consumer.start(self._topics, self._handler, on_fatal=self._one_ended)
            if self._ended:  # one of them has, and could not ask what was not started yet
                self._request_stop()
        except BaseException:
            try:
                self.stop()
            except Exception:
                pass  # the first error is the one to tell
            raise

    def run(self) -> None:
        """Start, and block until `stop`, a signal (in the main thread), or an error, which it raises."""
        self.start()
        with stopped_by_signals(self._consumer.request_stop):
            while not self._consumer.ended(0.2) and not self._ended:
                pass
        self.stop()

    def stop(self) -> None:
        """Stop all layers, bounded by `shutdown_timeout`, and free everything. Raises what ended one of them before."""
        self._request_stop()
        if self._manager.called_by_handler or self._consumer.called_by_handler:
            return  # what runs must end first; run() or the next stop() does the rest
        errors: list[BaseException] = []
        for stop in (self._consumer.stop, self._manager.stop, self.tracker.close):
            try:
                stop()
            except BaseException as error:
                errors.append(error)
        self._started = False
        if errors:
            raise errors[0]

    def _one_ended(self, error: BaseException) -> None:
        # One side without the other would let retries or locks pile up unseen: both stop, check() and run() say why.
        self._request_stop()

    def _request_stop(self) -> None:
        self._ended = True
        self._manager.request_stop()
        self._consumer.request_stop()

    def check(self) -> None:
        """Raise what ended one of the layers, if something did."""
        self.tracker.check()
        self._manager.check()
        self._consumer.check()

    def __enter__(self) -> ResilientConsumer:
        self.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        stop_at_exit(self.stop, error)
