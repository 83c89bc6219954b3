"""Ends that come while something is still being started: they hold for what is started after them, too."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from kafetrain import ErrorHandlingMiddleware, ErrorTracker, KafkaConsumer, Settings
from kafetrain.client.ports import ClientError, ConsumerPort
from kafetrain.testing.simulated import SimulatedCluster
from tests.waiting import wait_for

TOPIC = "orders"
SETTINGS = Settings(group_id="g")


class Client:
    """A simulated one. `on_join`: called before a group is joined, with its name; may change the consumer."""

    def __init__(self, on_join: Callable[[str, ConsumerPort], None]) -> None:
        cluster = SimulatedCluster()
        cluster.create_topic(TOPIC)
        self._client, self._on_join = cluster.client("one"), on_join

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def group_consumer(self, group: str, **options: Any) -> ConsumerPort:
        consumer = self._client.group_consumer(group, **options)
        self._on_join(group, consumer)
        return consumer


def test_a_retry_side_that_ends_before_the_source_side_has_begun_ends_that_too() -> None:
    """Else redirected records would pile up unseen."""

    def on_join(group: str, consumer: Any) -> None:
        if group == SETTINGS.retry_group_id:
            consumer.poll = refuse
        else:
            wait_for("the retry side has ended", lambda: resilient._ended)

    def refuse(*_: object) -> None:
        raise ClientError("not authorized")

    client: Any = Client(on_join)
    resilient = KafkaConsumer.resilient(SETTINGS, TOPIC, print, client=client)
    resilient.start()
    wait_for("the source side has ended", lambda: resilient._consumer.ended(0.1))
    with pytest.raises(ClientError, match="not authorized"):
        resilient.stop()


def test_a_stream_that_is_stopped_while_it_starts_ends() -> None:
    def on_join(group: str, _: object) -> None:
        if group == SETTINGS.retry_group_id:
            consumer.request_stop()

    client: Any = Client(on_join)
    streamed: list[object] = []
    with ErrorTracker(SETTINGS, client=client) as tracker:
        tracker.start_tracking(TOPIC)
        consumer = KafkaConsumer(SETTINGS).with_middlewares(ErrorHandlingMiddleware(tracker))
        thread = threading.Thread(target=lambda: streamed.extend(consumer.stream(TOPIC)), daemon=True)
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
    assert streamed == []
