"""An application: handlers by topic, what stands around them, and one life for all of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from loguru import logger

from kafetrain.app.again import InPlace
from kafetrain.app.backend import Backend, KafkaBackend, Sender
from kafetrain.app.config import Configuration
from kafetrain.app.payload import Decode, typed
from kafetrain.app.plan import Planned, Route, plan
from kafetrain.app.publisher import Publisher
from kafetrain.app.router import Router, TopicSpec, check_topic, is_pattern
from kafetrain.consumer import ErrorHandlingMiddleware, KafkaConsumer, ResilientConsumer
from kafetrain.consumer.consumer import stopped_by_signals
from kafetrain.errors import ConfigurationError
from kafetrain.handlers import check_handler
from kafetrain.managed.job import Engine
from kafetrain.record import Handler, Middleware, Record
from kafetrain.settings import Settings
from kafetrain.threads import stop_at_exit
from kafetrain.tracker import ErrorTracker
from kafetrain.tracker.hooks import OnDeadLetter

if TYPE_CHECKING:
    from kafetrain.app.memory import TestClient

__all__ = ["App"]

F = TypeVar("F", bound=Callable[..., object])
D = TypeVar("D", bound=OnDeadLetter)
Hook = TypeVar("Hook", bound=Callable[[], object])

CHECK_EVERY_S = 0.1


class App:
    """Handlers of one consumer group. Its arguments are settings, by their names; see `Configuration` for what else.

    `run` blocks; `with` runs it in the background. Building it connects to nothing, and raises `ConfigurationError` for
    settings that cannot be. Register handlers before it starts; then any thread may call it.
    """

    def __init__(self, *, middlewares: tuple[Middleware, ...] | list[Middleware] = (), **settings: Any) -> None:
        self._init(settings, None, middlewares)

    @classmethod
    def from_file(
        cls,
        path: str | Path = "kafetrain.yaml",
        *,
        middlewares: tuple[Middleware, ...] | list[Middleware] = (),
        **settings: Any,
    ) -> App:
        """As `App(...)`, with a YAML or TOML file below the environment. Raises `ConfigurationError`."""
        app = cls.__new__(cls)
        app._init(settings, path, middlewares)
        return app

    def _init(self, code: dict[str, Any], file: str | Path | None, middlewares: Any) -> None:
        self._code, self._file = code, file
        self.configuration = Configuration.load(code, file)
        """What holds for handlers without settings of their own, and where it is from."""
        self.routes: list[Route] = []
        """The handlers, as they were registered."""
        self.served: list[str] = []
        """The topics that are consumed, while it runs."""
        self._backend: Backend = KafkaBackend()
        self._middlewares: tuple[Middleware, ...] = ()
        self.use(*middlewares)
        self._start_hooks: list[Callable[[], object]] = []
        self._stop_hooks: list[Callable[[], object]] = []
        self._dead_letter_hooks: list[OnDeadLetter] = []
        self._engines: list[Engine] = []
        self._started = False
        self._stop_asked = threading.Event()
        self._ending = threading.RLock()  # taken first; one thread stops the app, others wait for it
        self._handling = threading.local()
        self._producing = threading.Lock()  # guards _producer
        self._producer: Sender | None = None

    @property
    def settings(self) -> Settings:
        return self.configuration.settings

    # Declaring

    def handler(
        self,
        *topics: TopicSpec,
        retry: bool = True,
        middlewares: tuple[Middleware, ...] | list[Middleware] = (),
        decode: Decode | None = None,
        **settings: Any,
    ) -> Callable[[F], F]:
        """As a decorator: call the function for each record of these topics; without any, of the configured ones.

        A topic is a name, a pattern such as `orders-*`, or a compiled regular expression; an exact name comes first.
        Patterns are looked up when the app starts. `retry`: what fails is retried in order; False: it runs again in its
        place, and its partition waits. `decode`, and a parameter annotated with a pydantic model: see `typed`.
        `settings` replace the app's for this handler, which then has a consumer of its own.
        Raises `ConfigurationError` where that cannot work.
        """
        if topics and callable(topics[0]) and not isinstance(topics[0], str):
            raise ConfigurationError("write @app.handler() with parentheses, around the topics")
        self._check_topics(topics)
        holds = Configuration.load({**self._code, **settings}, self._file).settings if settings else self.settings
        around = _checked(middlewares)

        def register(function: F) -> F:
            name = getattr(function, "__qualname__", type(function).__qualname__)
            self.routes.append(Route(name, typed(function, decode), tuple(topics), holds, retry, around))
            return function

        return register

    def use(self, *middlewares: Middleware) -> App:
        """Put middlewares around all handlers, outside of those that a handler has; the first is the outermost."""
        self._middlewares += _checked(middlewares)
        return self

    def on_start(self, hook: Hook) -> Hook:
        """As a decorator: call it before anything is consumed. What it raises keeps the app from starting."""
        check_handler(hook, "on_start")
        self._start_hooks.append(hook)
        return hook

    def on_stop(self, hook: Hook) -> Hook:
        """As a decorator: call it when everything has ended, the last one first, also after a start that failed."""
        check_handler(hook, "on_stop")
        self._stop_hooks.append(hook)
        return hook

    def on_dead_letter(self, hook: D) -> D:
        """As a decorator: call it with the record and the error when a record was given up, on a thread of its own."""
        check_handler(hook, "on_dead_letter")
        self._dead_letter_hooks.append(hook)
        return hook

    def publisher(self, topic: str) -> Publisher:
        """What sends to this topic. Connects when it first does; all publishers of an app share one producer,
        which is closed when the app stops."""
        check_topic(topic)
        if is_pattern(topic):
            raise ConfigurationError(f"{topic!r} is a pattern, and a record goes to one topic")
        return Publisher(topic, self._sender)

    def test_client(self) -> TestClient:
        """Runs the app in memory, for tests: see `TestClient`. Connects to nothing."""
        from kafetrain.app.memory import TestClient

        return TestClient(self)

    # Running

    def start(self) -> None:
        """Start everything in the background. Where something fails to start, nothing is left running.

        Raises `ConfigurationError`, `ClientError` where no broker answers, and what a start hook raises.
        """
        self.start_on(KafkaBackend())

    def start_on(self, backend: Backend) -> None:
        """As `start`, with records from somewhere else."""
        if self._started:
            raise ConfigurationError("the app runs already")
        self._stop_asked.clear()
        consumers = plan(self.routes, self.configuration.topics, lambda: backend.topic_names(self.settings))
        self._started, self._backend = True, backend
        self.served = [topic for planned in consumers for topic in planned.handlers]
        try:
            for hook in self._start_hooks:
                hook()
            for planned in consumers:
                engine = self._engine(planned)
                self._engines.append(engine)
                engine.start()
        except BaseException:
            try:
                self.stop()
            except Exception:
                pass  # the first error is the one to tell
            raise

    def run(self) -> None:
        """Start, and block until `stop`, SIGINT, SIGTERM (in the main thread) or an error, which it raises."""
        self.start()
        try:
            with stopped_by_signals(self.request_stop):
                while not self._stop_asked.wait(CHECK_EVERY_S):
                    self.check()
        finally:
            self.stop()

    def request_stop(self) -> None:
        """Ask `run` to end, and return at once. Any thread, handlers too."""
        self._stop_asked.set()

    def stop(self) -> None:
        """Let running handlers end, commit, leave the group, call the stop hooks; bounded by `shutdown_timeout`.

        Raises what ended a consumer before. In a handler it only asks, and `run` or the end of `with` does it.
        """
        self.request_stop()
        if getattr(self._handling, "now", False):
            return
        with self._ending:
            if not self._started:
                return
            self._started = False
            errors = [*self._stop_engines(), *self._close_producer(), *self._call_stop_hooks()]
        if errors:
            raise errors[0]

    def _stop_engines(self) -> list[BaseException]:
        engines, self._engines = self._engines, []
        with ThreadPoolExecutor(max_workers=max(1, len(engines)), thread_name_prefix="kafetrain-stop") as pool:
            stopping = [pool.submit(engine.stop) for engine in engines]  # side by side
        return [error for stopped in stopping if (error := stopped.exception()) is not None]

    def _close_producer(self) -> list[BaseException]:
        with self._producing:
            producer, self._producer = self._producer, None
        if producer is not None:
            producer.close(self.settings.shutdown_timeout.total_seconds())
        return []

    def _sender(self) -> Sender:
        with self._producing:
            if self._producer is None:
                self._producer = self._backend.sender(self.settings)
            return self._producer

    def _call_stop_hooks(self) -> list[BaseException]:
        errors: list[BaseException] = []
        for hook in reversed(self._stop_hooks):
            try:
                hook()
            except Exception as error:
                logger.error("the stop hook {} raised {}", getattr(hook, "__qualname__", hook), type(error).__name__)
                errors.append(error)
        return errors

    @property
    def trackers(self) -> list[ErrorTracker]:
        """What knows the locks, while the app runs: of the handlers that are retried in order."""
        return [engine.tracker for engine in self._engines if isinstance(engine, ResilientConsumer)]

    def check(self) -> None:
        """Raise what ended one of the consumers, if something did."""
        for engine in self._engines:
            engine.check()

    def __enter__(self) -> App:
        self.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        stop_at_exit(self.stop, error)

    def _engine(self, planned: Planned) -> Engine:
        handler = Router({topic: partial(self._handle, handler) for topic, handler in planned.handlers.items()})
        topics, settings, client = (
            list(planned.handlers),
            self._backend.adapted(planned.settings),
            self._backend.client(),
        )
        outer, around = self._backend.middlewares, [*self._middlewares, *planned.middlewares]
        if planned.retry:
            told = self._tell_of_dead_letter if self._dead_letter_hooks else None
            return KafkaConsumer.resilient(
                settings, topics, handler, middlewares=[*outer, *around], on_dead_letter=told, client=client
            )
        in_place = InPlace(settings.backoff, skip_failed=self.configuration.auto_commit)
        consumer = KafkaConsumer(settings, client=client).with_middlewares(*outer, in_place, *around)
        return _Plain(consumer, topics, handler)

    def _tell_of_dead_letter(self, record: Record, error: BaseException) -> None:
        for hook in self._dead_letter_hooks:
            hook(record, error)

    def _handle(self, handler: Handler, record: Record) -> object:
        self._handling.now = True
        try:
            return handler(record)
        finally:
            self._handling.now = False

    def _check_topics(self, topics: tuple[TopicSpec, ...]) -> None:
        for topic in topics:
            check_topic(topic)
        if not topics and any(not route.topics for route in self.routes):
            raise ConfigurationError("two handlers serve the configured topics: name the topics of one of them")
        for route in self.routes:
            if both := set(topics) & set(route.topics):
                raise ConfigurationError(f"topic {both.pop()!s} has a handler already: {route.name}")
        if len(set(topics)) < len(topics):
            raise ConfigurationError("one handler names a topic twice")


class _Plain:
    def __init__(self, consumer: KafkaConsumer, topics: list[str], handler: Handler) -> None:
        self._consumer, self._topics, self._handler = consumer, topics, handler
        self.check, self.stop = consumer.check, consumer.stop

    def start(self) -> None:
        self._consumer.start(self._topics, self._handler)


def _checked(middlewares: Any) -> tuple[Middleware, ...]:
    for middleware in middlewares:
        check_handler(middleware, "middleware")
        if isinstance(middleware, ErrorHandlingMiddleware):
            raise ConfigurationError("an app has its own ErrorHandlingMiddleware; leave yours out, or pass retry=False")
    return tuple(middlewares)
