"""An app in memory, for tests: its handlers run on a simulated cluster, as they would on a real one.

Everything but Kafka is the app's own: routing, payloads, middlewares, hooks, retries, dead letters. Waits between
retries are left out, unless a handler names one itself.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from kafetrain.app.backend import KafkaBackend, Sender
from kafetrain.app.publisher import encoded
from kafetrain.app.router import is_pattern
from kafetrain.backoff_policy import ConstantBackoff
from kafetrain.client.ports import Client
from kafetrain.errors import ConfigurationError
from kafetrain.managed import Metadata
from kafetrain.managed.producer import Callback, GivenHeaders
from kafetrain.record import Handler, Middleware, Record, is_retry_message
from kafetrain.settings import Settings
from kafetrain.telemetry.outcomes import FAILED, NO_OUTCOME, PAUSED, observe
from kafetrain.testing.simulated import SimulatedCluster, SimulatedRecord
from kafetrain.threads import stop_at_exit
from kafetrain.topics import AuxiliaryTopics

if TYPE_CHECKING:
    from kafetrain.app.app import App

__all__ = ["TestClient"]

LOOK_EVERY_S = 0.005


class TestClient:
    """Made by `App.test_client`. For the test's own thread; a context manager that ends the app.

    with app.test_client() as client:
        client.publish("orders", {"number": 1}, key="ann")
        client.run_until_idle()
        assert client.dead_letters("orders") == []
    """

    __test__ = False  # no class of tests, for pytest

    def __init__(self, app: App) -> None:
        self._app = app
        self.cluster = SimulatedCluster()
        """For what the client has no word for: faults, partitions, transactions."""
        self._memory = _Memory(self.cluster)
        self._started = False
        for topic in [*app.configuration.topics, *(topic for route in app.routes for topic in route.topics)]:
            if isinstance(topic, str) and not is_pattern(topic):
                self._create(topic)

    def publish(
        self, topic: str, value: Any, *, key: str | bytes | None = None, headers: GivenHeaders = ()
    ) -> Metadata:
        """A record that the app is to handle. Values as with `App.publisher`. A topic that is missing is created.

        Patterns find the topics that exist at the first `run_until_idle`.
        """
        self._create(topic)
        return self._memory.sender(self._app.settings).send(topic, key, encoded(value), headers)

    def run_until_idle(self, timeout: float = 10.0) -> None:
        """Handle everything that was published, by the test or by handlers, with all retries.

        Starts the app at the first call. Raises what ended it, and `AssertionError` where it is not idle within
        `timeout` seconds: a handler without retry topics that goes on failing, or one that does not return.
        """
        if not self._started:
            self._app.start_on(self._memory)
            self._started = True
        give_up_at, never = time.monotonic() + timeout, threading.Event()
        while waits := self._waits():
            self._app.check()
            if time.monotonic() > give_up_at:
                raise AssertionError(f"not idle within {timeout:g} s: {waits}")
            never.wait(LOOK_EVERY_S)
        self._app.check()

    def dead_letters(self, topic: str) -> list[SimulatedRecord]:
        """What was given up of a source topic; the headers `x-dlq-reason` and `x-dlq-state` say why."""
        return self.published(AuxiliaryTopics.of(self._app.settings, topic).dlq)

    def published(self, topic: str) -> list[SimulatedRecord]:
        """All records of a topic, partition by partition: what handlers sent there, say."""
        return self.cluster.read(topic) if topic in self.cluster.topics() else []

    def close(self) -> None:
        """End the app. Raises what ended it before."""
        if self._started:
            self._started = False
            self._app.stop()

    def __enter__(self) -> TestClient:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        stop_at_exit(self.close, error)

    def _create(self, topic: str) -> None:
        if topic not in self.cluster.topics():
            self.cluster.create_topic(topic)

    def _waits(self) -> str | None:
        """What is not done yet. In this order: a record is written down in the next place before it leaves the last."""
        for topic in self._app.served:
            ended = self._memory.ended(topic)
            for partition, end in self.cluster.end_offsets(topic).items():
                if ended.get(partition, 0) < end - self.cluster.begin_offsets(topic)[partition]:
                    return f"records of {topic} have not been handled"
        for tracker in self._app.trackers:
            if any(claim.is_writing for claim in tuple(tracker.state.source_claims.values())):
                return "what failed is being written down"
            for prepared in tuple(tracker.state.topics.values()):
                waiting = [
                    entry for entry in self.cluster.locks(prepared.names.redirect).values() if not _is_dead(entry)
                ]
                if waiting:
                    return f"{len(waiting)} records of {prepared.names.source} wait for a retry"
        return None


def _is_dead(entry: Mapping[str, Any]) -> bool:
    return entry.get("state") == "dead"


class _Memory(KafkaBackend):
    """A `Backend` that also knows which records have ended: of the source side, retries are the locks' affair."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster
        self._mutex = threading.Lock()  # guards _ended
        self._ended: dict[str, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
        self.middlewares: tuple[Middleware, ...] = (self._observe,)

    def topic_names(self, settings: Settings) -> Collection[str]:
        return list(self._cluster.topics())

    def adapted(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"backoff": ConstantBackoff(timedelta(0)), "auto_offset_reset": "earliest"})

    def client(self) -> Client | None:
        return self._cluster.client()

    def sender(self, settings: Settings) -> Sender:
        return _Sender(self._cluster)

    def ended(self, topic: str) -> dict[int, int]:
        """How many records of each partition."""
        with self._mutex:
            return {partition: len(offsets) for partition, offsets in self._ended[topic].items()}

    def _observe(self, record: Record, call_next: Handler) -> object:
        if is_retry_message(record):
            return call_next(record)

        def tell(outcome: str, error: BaseException | None) -> None:
            if outcome not in (FAILED, NO_OUTCOME, PAUSED):
                with self._mutex:
                    self._ended[record.topic][record.partition].add(record.offset)

        return observe(record, call_next, tell)


class _Sender:
    """A `Sender` into the cluster in memory."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster

    def send(
        self, topic: str, key: str | bytes | None, value: str | bytes | None, headers: GivenHeaders = ()
    ) -> Metadata:
        if key is None and value is None:
            raise ConfigurationError(f"a record for {topic} has neither key nor value, which Kafka clients cannot send")
        if topic not in self._cluster.topics():
            self._cluster.create_topic(topic)
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        given = [(name, _bytes(text) or b"") for name, text in pairs]
        (written,) = self._cluster.write(topic, _bytes(key), _bytes(value), headers=given)
        return Metadata(written.partition, written.offset)

    def send_async(
        self,
        topic: str,
        key: str | bytes | None,
        value: str | bytes | None,
        headers: GivenHeaders = (),
        callback: Callback | None = None,
    ) -> None:
        metadata = self.send(topic, key, value, headers)
        if callback is not None:
            callback(metadata, None)

    def close(self, timeout: float | None = None) -> None: ...


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
