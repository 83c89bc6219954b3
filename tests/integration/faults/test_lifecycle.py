"""Starting, failing to start, stopping: what is left running, and what a stop does to a handler that takes long."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from loguru import logger

from kafetrain import ConfigurationError, ConstantBackoff, ErrorTracker, KafkaConsumer, Record, Settings
from kafetrain import get_retry_attempt as attempt_of
from kafetrain.client.kafka_python import KafkaPythonClient
from kafetrain.client.kafka_python_admin import KafkaPythonAdmin
from kafetrain.client.kafka_python_consumer import KafkaPythonConsumer
from kafetrain.client.ports import ClientError
from tests.waiting import wait_for

if TYPE_CHECKING:
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka

STARTS, SIDE_BY_SIDE = 100, 5
SECRET = "not-for-your-eyes"


class Resources:
    """What this process holds now. `left` says what came since, and is still there."""

    def __init__(self) -> None:
        self._threads, self._files = set(threading.enumerate()), self._open_files()

    def left(self) -> list[str]:
        threads = [thread.name for thread in threading.enumerate() if thread not in self._threads]
        files = self._open_files()
        return threads + [f"{number} -> {name}" for number, name in files.items() if self._files.get(number) != name]

    def is_freed(self) -> bool:
        return not self.left()

    def wait_until_freed(self) -> None:
        """A thread that was told to end may still be on its way out; nothing may stay."""
        with contextlib.suppress(AssertionError):
            wait_for("all is freed", self.is_freed, timeout=60)
        assert self.left() == []

    @staticmethod
    def _open_files() -> dict[int, str]:
        found: dict[int, str] = {}
        for entry in Path("/proc/self/fd").iterdir() if Path("/proc/self/fd").exists() else ():
            with contextlib.suppress(OSError):  # the folder itself, closed by now
                found[int(entry.name)] = os.readlink(entry)
        return found


def left_each_time(act: Callable[[], None]) -> list[str]:
    """What `act` leaves open whenever it is done; the last time's. A socket that is just being closed, or that another
    client of this process has opened meanwhile, is there once: what leaks grows with each time."""
    left: list[str] = []
    for _ in range(3):
        before = Resources()
        act()
        with contextlib.suppress(AssertionError):
            wait_for("all is freed", before.is_freed, timeout=20)
        left = before.left()
        if not left:
            break
    return left


def nothing(record: Record) -> None:
    pass


@pytest.fixture
def messages() -> Iterator[list[str]]:
    """Everything that kafetrain logs, with all that is bound to it."""
    found: list[str] = []
    logger.enable("kafetrain")
    sink = logger.add(found.append, level="TRACE", format="{message} {extra}\n{exception}")
    yield found
    logger.remove(sink)
    logger.disable("kafetrain")


@pytest.fixture(params=["refuses connections", "accepts and says nothing"])
def dead_address(request: pytest.FixtureRequest) -> Iterator[str]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if request.param != "refuses connections":
            server.listen()
        yield f"127.0.0.1:{server.getsockname()[1]}"


def start_tracker(settings: Settings) -> None:
    ErrorTracker(settings).start_tracking("orders")


def run_all_layers(settings: Settings) -> None:
    KafkaConsumer.resilient(settings, "orders", nothing).run()


@pytest.mark.parametrize("start", [start_tracker, run_all_layers])
def test_without_a_broker_starting_is_one_clear_error_and_leaves_nothing(
    dead_address: str,
    start: Callable[[Settings], None],
    messages: list[str],
) -> None:
    before = Resources()
    settings = Settings(
        bootstrap_servers=dead_address,
        group_id="billing",
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        sasl_username="app",
        sasl_password=SECRET,
        client_options={"bootstrap_timeout_ms": 1_000},
        _env_file=None,
    )
    with pytest.raises(ClientError) as caught:
        start(settings)
    assert dead_address in str(caught.value)
    assert caught.value.retriable
    told = "".join(traceback.format_exception(caught.value)) + "".join(messages)
    assert SECRET not in told
    del caught
    gc.collect()  # kafka-python leaves the sockets of refused connections to it
    before.wait_until_freed()


def test_topics_that_break_a_promise_leave_nothing_running(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic = kafetrain_topic(2)
    cluster.broker.create_topic(f"redirect-{topic}", 2, {"cleanup.policy": "delete"})
    settings = make_settings()

    def start_both() -> None:
        tracker, consumer = ErrorTracker(settings), KafkaConsumer.resilient(settings, topic, nothing)
        starts: list[Callable[[], None]] = [partial(tracker.start_tracking, topic), consumer.run]
        for start in starts:
            with pytest.raises(ConfigurationError, match=rf"redirect-{topic}.*cleanup\.policy"):
                start()

    left = left_each_time(start_both)
    assert left == []


class FailingStep:
    """Counts what a start asks of the client, and fails the nth of it."""

    ASKED = (
        (KafkaPythonClient, ("admin", "producer", "reader", "group_consumer")),
        (KafkaPythonAdmin, ("describe_topics", "topic_configs", "create_topics", "committed", "set_committed")),
        (KafkaPythonConsumer, ("subscribe", "assign", "end_offsets", "beginning_offsets")),
    )

    def __init__(self, nth: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self._nth, self._mutex = 0, nth, threading.Lock()
        for kind, names in self.ASKED:
            for name in names:
                monkeypatch.setattr(kind, name, self._counting(getattr(kind, name)))

    def _counting(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def count(*arguments: Any, **options: Any) -> Any:
            with self._mutex:
                self.count += 1
                fails = self.count == self._nth
            if fails:
                raise ClientError(f"no {step.__name__} today")
            return step(*arguments, **options)

        return count


class Handled:
    """A handler that tells of the first record."""

    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def __call__(self, record: Record) -> None:
        self._event.set()


def test_a_start_that_fails_at_any_step_leaves_nothing_running(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, steps = kafetrain_topic(1), 0
    cluster.write(topic, b"k", b"")
    while True:
        handled, before = threading.Event(), Resources()
        with pytest.MonkeyPatch.context() as patched:
            failing = FailingStep(steps + 1, patched)
            consumer = KafkaConsumer.resilient(make_settings(), topic, Handled(handled))
            try:
                with consumer:
                    wait_for("it works", handled.is_set, check=consumer.check)
                failed = None
            except ClientError as error:
                failed = error
        before.wait_until_freed()
        if failing.count <= steps:
            break
        steps += 1
        assert failed is None or str(failed).endswith(" today")
    assert steps > 8, "all of them were failed in turn"


def test_a_start_that_fails_in_its_last_step_leaves_nothing_running(
    cluster: Cluster,
    kafetrain_topic: TopicFactory,
    make_settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ClientError("no more consumers today")

    monkeypatch.setattr(KafkaConsumer, "start", refuse)
    topic, before = kafetrain_topic(2), Resources()
    with pytest.raises(ClientError, match="no more consumers today"):
        KafkaConsumer.resilient(make_settings(), topic, nothing).run()
    before.wait_until_freed()


def test_a_hundred_starts_and_stops_leave_no_thread_and_no_descriptor(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    """Several at a time, since most of it is waiting."""
    settings = [(kafetrain_topic(2), make_settings()) for _ in range(SIDE_BY_SIDE)]

    def start_and_stop(topic: str, settings: Settings, offset: int, errors: list[BaseException]) -> None:
        handled = threading.Event()

        def handle(record: Record) -> None:
            if record.offset == offset:
                handled.set()

        try:
            with KafkaConsumer.resilient(settings, topic, handle):
                assert handled.wait(30), f"record {offset} was not handled"
        except BaseException as error:
            errors.append(error)

    def cycle() -> None:
        sent = [cluster.write(topic, b"k", b"")[0].offset for topic, _ in settings]
        errors = list[BaseException]()
        threads = [
            threading.Thread(target=start_and_stop, args=(*each, offset, errors))
            for each, offset in zip(settings, sent, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        for (topic, own), offset in zip(settings, sent, strict=True):
            assert cluster.committed(own.group_id, topic)[0][0] == offset + 1

    cycle()  # whatever is made once for a process, and the connections of the test's own clients
    before = Resources()
    for _ in range(STARTS // SIDE_BY_SIDE):
        cycle()
    before.wait_until_freed()


class Stuck:
    """A handler that fails `failures` times, and then hangs until `let_go`. Then it ends as `fails` says."""

    def __init__(self, failures: int, *, fails: bool) -> None:
        self.failures, self.fails = failures, fails
        self.attempts: list[int] = []
        self.hangs, self.let_go, self.ended = threading.Event(), threading.Event(), threading.Event()

    def __call__(self, record: Record) -> None:
        self.attempts.append(attempt_of(record))
        if len(self.attempts) <= self.failures:
            raise ValueError("not yet")
        self.hangs.set()
        self.let_go.wait(60)
        self.ended.set()
        if self.fails:
            raise ValueError("too late")


@pytest.mark.parametrize("fails", [False, True], ids=["it succeeds later", "it fails later"])
@pytest.mark.parametrize("failures", [0, 1], ids=["first run", "retry"])
def test_a_stop_does_not_wait_for_a_handler_that_hangs_and_its_record_runs_again(
    failures: int, fails: bool, cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic = kafetrain_topic(1)
    settings = make_settings(shutdown_timeout=timedelta(seconds=1), backoff=ConstantBackoff(timedelta(milliseconds=10)))
    cluster.write(topic, b"k", b"")
    stuck, before = Stuck(failures, fails=fails), Resources()
    consumer = KafkaConsumer.resilient(settings, topic, stuck)
    consumer.start()
    assert stuck.hangs.wait(30)
    began = time.monotonic()
    consumer.stop()
    took = time.monotonic() - began
    assert 1 <= took < 5, f"shutdown_timeout is 1 s, and stop() took {took:.1f} s"
    stuck.let_go.set()
    assert stuck.ended.wait(10)
    before.wait_until_freed()
    assert stuck.attempts == list(range(failures + 1))

    again = threading.Event()
    attempts: list[int] = []

    def handle(record: Record) -> None:
        attempts.append(attempt_of(record))
        again.set()

    with KafkaConsumer.resilient(settings, topic, handle) as consumer:
        assert again.wait(30), "the record did not run again"
        wait_for("its lock has ended", lambda: not consumer.tracker.locks(topic))
    assert attempts == [failures], "a run that was cut off counts no attempt"
    cluster.check_at_rest(settings, topic)
