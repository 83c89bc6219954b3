"""kafetrain as it is measured: all layers, in a group of its own."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from kafetrain import KafkaConsumer, Settings
from kafetrain.record import Middleware
from kafetrain.testing import Broker
from tests.benchmarks.counter import Counter

__all__ = ["handle_all", "settings_for"]


def settings_for(broker: Broker, client: str, **more: Any) -> Settings:
    group = f"kt-{uuid.uuid4().hex[:8]}"
    return Settings(bootstrap_servers=broker.bootstrap_servers, group_id=group, client=client, **more)


def handle_all(settings: Settings, topic: str, records: int, middlewares: Sequence[Middleware] = ()) -> Counter:
    """So many, none of which fails. They are committed on return."""
    counter = Counter(records)
    with KafkaConsumer.resilient(settings, topic, counter, middlewares=middlewares) as consumer:
        while not counter.done.wait(1.0):
            consumer.check()
    return counter
