"""Metrics and spans of an app on a real broker."""

from __future__ import annotations

import threading
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import format_span_id
from prometheus_client import CollectorRegistry

from kafetrain import App, ConstantBackoff, NotRetriableError, Record, get_retry_attempt
from kafetrain.telemetry import Metrics, TracingMiddleware
from tests.waiting import wait_for

if TYPE_CHECKING:
    from kafetrain.testing import Broker
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_what_waits_what_died_and_how_each_run_ended(
    cluster: Cluster, kafetrain_topic: TopicFactory, kafetrain_broker: Broker, make_settings: MakeSettings
) -> None:
    topic, registry, exporter = kafetrain_topic(2, prefix="orders"), CollectorRegistry(), InMemorySpanExporter()
    provider, healed = TracerProvider(), threading.Event()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    metrics = Metrics(registry)
    app = App(
        brokers=kafetrain_broker.bootstrap_servers,
        client_options=kafetrain_broker.client_options,
        group=make_settings().group_id,
        backoff=ConstantBackoff(timedelta(milliseconds=100)),
        max_retries=None,
        middlewares=[metrics, TracingMiddleware(provider)],
    )
    app.on_dead_letter(metrics.on_dead_letter)
    metrics.watch(app)

    @app.handler(topic)
    def handle(record: Record) -> None:
        if record.value == b"dies":
            raise NotRetriableError("no")
        if record.value == b"waits" and not (healed.is_set() and get_retry_attempt(record)):
            raise ConnectionError("a payload")

    cluster.write(topic, b"a", b"waits", headers=[("traceparent", PARENT.encode())])
    cluster.write(topic, b"a", b"behind")
    cluster.write(topic, b"b", b"dies")
    cluster.write(topic, b"c", b"good")

    def gauge(name: str, partition: str = "0") -> float | None:
        return registry.get_sample_value(f"kafetrain_{name}", {"topic": topic, "partition": partition})

    def count(outcome: str) -> float | None:
        return registry.get_sample_value("kafetrain_records_total", {"topic": topic, "outcome": outcome})

    with app:
        wait_for("two wait", lambda: gauge("pending_locks") == 2, check=app.check)
        wait_for("one is dead", lambda: gauge("dead_keys") == 1, check=app.check)
        wait_for("it has waited for some time", lambda: (gauge("oldest_pending_seconds") or 0) > 0.2, check=app.check)
        wait_for("a partition without locks has gauges too", lambda: gauge("pending_locks", "1") == 0, check=app.check)
        assert 0 < (gauge("restore_seconds") or 0) < 30
        assert gauge("orphans") == 0
        dead = {"topic": topic}
        wait_for(
            "it is counted",
            lambda: registry.get_sample_value("kafetrain_dead_letters_total", dead) == 1,
            check=app.check,
        )
        healed.set()
        wait_for("nothing waits", lambda: gauge("pending_locks") == 0, check=app.check)
        assert gauge("oldest_pending_seconds") == 0
    assert gauge("pending_locks") is None, "a stopped app works on no partition"
    assert (count("redirected"), count("side-lined"), count("dead-lettered")) == (1, 1, 1)
    assert count("succeeded") == 3
    assert (count("failed") or 0) >= 1

    spans = [
        span for span in exporter.get_finished_spans() if (span.attributes or {}).get("messaging.kafka.offset") == 0
    ]
    attempts = [(span.attributes or {})["kafetrain.attempt"] for span in spans]
    assert attempts == list(range(len(spans)))
    for before, span in pairwise(spans):
        assert [format_span_id(link.context.span_id) for link in span.links] == [
            PARENT.split("-")[2],
            format_span_id(before.context.span_id),
        ]
