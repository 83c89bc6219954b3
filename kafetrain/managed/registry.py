"""The consumers and producers of a service: declared, switched, watched and stopped in one place."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from kafetrain.clock import Clock, SystemClock
from kafetrain.consumer import ResilientConsumer
from kafetrain.consumer.consumer import stopped_by_signals
from kafetrain.errors import ConfigurationError
from kafetrain.managed.config import Consumer, ConsumerConfig
from kafetrain.managed.engine import build_engine
from kafetrain.managed.job import Engine, Job
from kafetrain.managed.producer import ManagedProducer
from kafetrain.managed.producer_config import ProducerConfig
from kafetrain.managed.status import ConsumerStatus, lag_of
from kafetrain.record import Handler
from kafetrain.settings_checks import nearest
from kafetrain.tracker import ErrorTracker

__all__ = ["Registry"]

H = TypeVar("H", bound=Handler)

Build = Callable[[ConsumerConfig, Handler, Clock, Callable[[], None]], Engine]


class Registry:
    """Consumers are off until they are switched on. Any thread may call it, handlers too.

    After `stop` and `wait_stop` it may be started again. `clock` and `build` are for tests.
    """

    def __init__(self, *, clock: Clock | None = None, build: Build = build_engine) -> None:
        self._clock: Clock = clock or SystemClock()
        self._build = build
        # One thread at a time says what is wanted: a switch that saw no stop() and comes after it would undo it, and
        # wait_stop() would wait for good. Taken before _mutex and a job's own.
        self._switching = threading.Lock()
        self._mutex = threading.Lock()  # guards the two below; nothing else is taken inside
        self._jobs: dict[str, Job] = {}
        self._producers: dict[str, ManagedProducer] = {}
        self._stopping = threading.Event()

    # Consumers

    def register_consumer(self, consumer: ConsumerConfig | Consumer) -> None:
        """Add a consumer: a `ConsumerConfig` with a handler, or an object with `config` and `handle`. It is off.

        Raises `ConfigurationError` where its job name is taken, it has no handler, or its settings cannot be.
        """
        config, handler = _parts_of(consumer)
        config.settings()  # what cannot be is said now, and not at the first start
        job = Job(config, partial(self._build, config, handler, self._clock), self._clock)
        with self._mutex:
            if config.job_name in self._jobs:
                raise ConfigurationError(f"job name {config.job_name!r} is taken: each consumer needs one of its own")
            self._jobs[config.job_name] = job

    def consumer(self, **declared: Any) -> Callable[[H], H]:
        """As a decorator of the handler: `@registry.consumer(job_name="b", topic="orders", group_id="billing")`."""

        def register(handler: H) -> H:
            self.register_consumer(ConsumerConfig(**declared, handler=handler))
            return handler

        return register

    def set_consumer_switch(self, job_name: str, on: bool) -> None:
        """Switch a consumer on, or off: then it finishes what runs, commits, and leaves its group.

        Returns at once; `status` tells how far it is. Also brings a disabled consumer back. Raises
        `ConfigurationError` for a job name that is not registered, and for switching on after `stop`.
        """
        job = self._job(job_name)
        with self._switching:
            if on and self._stopping.is_set():
                raise ConfigurationError(
                    f"{job_name!r} stays off: stop() was called; start_all_consumers() starts again"
                )
            job.switch(on)

    def start_all_consumers(self) -> None:
        """Switch on every consumer, but those that are disabled or were switched off by `set_consumer_switch`. Returns
        at once.

        Raises `ConfigurationError` where none is registered.
        """
        jobs = self._all_jobs()
        if not jobs:
            raise ConfigurationError("no consumer is registered: register_consumer() first")
        with self._switching:
            self._stopping.clear()
            for job in jobs:
                if not job.stays_off:
                    job.switch(True)

    def status(self, job_name: str, *, lag: bool = True) -> ConsumerStatus:
        """How a consumer is doing. `lag` asks the brokers: it blocks, and raises `ClientError` where none answers."""
        job = self._job(job_name)
        status = job.status()
        return replace(status, lag=lag_of(job.config.settings(), job.config.topic)) if lag else status

    def statuses(self, *, lag: bool = False) -> list[ConsumerStatus]:
        """As `status`, of all consumers, in the order of their registration."""
        return [self.status(job.config.job_name, lag=lag) for job in self._all_jobs()]

    @property
    def trackers(self) -> list[ErrorTracker]:
        """What knows the locks, of consumers that are on and have `retry`: for `Metrics.watch`."""
        engines = [job.engine for job in self._all_jobs()]
        return [engine.tracker for engine in engines if isinstance(engine, ResilientConsumer)]

    # Producers

    def register_producer(self, config: ProducerConfig) -> ManagedProducer:
        """A producer that `wait_stop` closes. Connects when it first sends. `ConfigurationError`: its name is taken."""
        producer = ManagedProducer(config)
        with self._mutex:
            if config.name in self._producers:
                raise ConfigurationError(f"producer name {config.name!r} is taken: each needs one of its own")
            self._producers[config.name] = producer
        return producer

    def producer(self, name: str = "default") -> ManagedProducer:
        """A producer that was registered. `ConfigurationError` for a name that was not."""
        with self._mutex:
            producer, known = self._producers.get(name), list(self._producers)
        if producer is None:
            raise _unknown("no producer has the name", name, known)
        return producer

    # Ending

    def stop(self) -> None:
        """Ask all consumers to finish what runs, commit and leave. Returns at once; `wait_stop` waits for it."""
        with self._switching:
            self._stopping.set()
            for job in self._all_jobs():
                job.request_end()

    def wait_stop(self, timeout: float | None = None) -> bool:
        """Wait until `stop` was called and all has ended: handlers, commits, producers. False: not within `timeout` s.

        Producers are closed after the consumers, whose handlers may use them, and are no longer registered. Not for a
        handler's thread.
        """
        give_up_at = None if timeout is None else time.monotonic() + timeout

        def left() -> float | None:
            return None if give_up_at is None else max(0.0, give_up_at - time.monotonic())

        if not self._stopping.wait(left()):
            return False
        if not all(job.join(left()) for job in self._all_jobs()):
            return False
        with self._mutex:
            producers, self._producers = list(self._producers.values()), {}
        for producer in producers:
            producer.close(left())
        return True

    def run(self) -> None:
        """Start all consumers, and block until `stop`, SIGINT or SIGTERM (in the main thread); then end all.

        Bounded from then on by the longest `shutdown_timeout` and a few seconds.
        """
        self.start_all_consumers()
        with stopped_by_signals(self.stop):
            while not self._stopping.wait(0.2):
                pass
            self.wait_stop(self._patience_s())

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.wait_stop(self._patience_s())

    def _patience_s(self) -> float:
        return max((job.config.shutdown_timeout.total_seconds() for job in self._all_jobs()), default=0.0) + 10.0

    def _all_jobs(self) -> list[Job]:
        with self._mutex:
            return list(self._jobs.values())

    def _job(self, name: str) -> Job:
        with self._mutex:
            job, known = self._jobs.get(name), list(self._jobs)
        if job is None:
            raise _unknown("no consumer has the job name", name, known)
        return job


def _unknown(what: str, name: str, known: list[str]) -> ConfigurationError:
    others = f"; there are {', '.join(known)}" if known else "; none is registered"
    return ConfigurationError(f"{what} {name!r}{nearest(name, known) or others}")


def _parts_of(consumer: ConsumerConfig | Consumer) -> tuple[ConsumerConfig, Handler]:
    if isinstance(consumer, ConsumerConfig):
        config, handler = consumer, consumer.handler
        if handler is None:
            raise ConfigurationError(f"consumer {config.job_name!r} has no handler: pass handler=")
        return config, handler
    if not isinstance(consumer, Consumer):
        raise ConfigurationError(
            f"a consumer is a ConsumerConfig, or an object with config and handle, not {type(consumer).__name__}"
        )
    if not isinstance(consumer.config, ConsumerConfig):
        raise ConfigurationError(
            f"config of {type(consumer).__name__} must be a ConsumerConfig, not {type(consumer.config).__name__}"
        )
    if consumer.config.handler is not None:
        raise ConfigurationError(f"consumer {consumer.config.job_name!r} has a handler and a handle(): keep one")
    return consumer.config, consumer.handle
