"""What metrics and spans say of a run, without a broker."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import timedelta
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode, format_span_id
from prometheus_client import CollectorRegistry

import kafetrain.telemetry
from kafetrain import ConfigurationError, Outcome, Pause, Record
from kafetrain.handlers import NoOutcome
from kafetrain.telemetry import Metrics, TracingMiddleware, trace_headers
from tests.unit.records import record


def fail(_: Record) -> None:
    raise ValueError("a payload")


def pause(_: Record) -> None:
    raise Pause(timedelta(0))


def called(middleware: Any, handler: Any, **fields: Any) -> None:
    try:
        middleware(record(**fields), handler)
    except (ValueError, Pause):
        pass


def done(value: object) -> Future[object]:
    future: Future[object] = Future()
    if isinstance(value, BaseException):
        future.set_exception(value)
    else:
        future.set_result(value)
    return future


ENDS: list[tuple[Any, str, bool]] = [
    (lambda _: None, "succeeded", True),
    (lambda _: Outcome.SUCCEEDED, "succeeded", True),
    (lambda _: Outcome.REDIRECTED, "redirected", True),
    (lambda _: Outcome.SIDELINED, "side-lined", False),
    (lambda _: Outcome.DEAD_LETTERED, "dead-lettered", True),
    (fail, "failed", True),
    (pause, "paused", True),
    (lambda _: done(None), "succeeded", True),
    (lambda _: done(Outcome.REDIRECTED), "redirected", True),
    (lambda _: done(ValueError()), "failed", True),
    (lambda _: done(NoOutcome()), "none", True),
]


@pytest.mark.parametrize(("handler", "outcome", "ran"), ENDS)
def test_records_are_counted_by_outcome_and_runs_are_timed(handler: Any, outcome: str, ran: bool) -> None:
    registry = CollectorRegistry()
    called(Metrics(registry), handler)
    assert registry.get_sample_value("kafetrain_records_total", {"topic": "orders", "outcome": outcome}) == 1
    assert (registry.get_sample_value("kafetrain_handler_seconds_count", {"topic": "orders"}) or 0) == int(ran)


def test_the_names_of_the_metrics_are_public() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.on_dead_letter(record(), ValueError())
    assert registry.get_sample_value("kafetrain_dead_letters_total", {"topic": "orders"}) == 1
    assert sorted(family.name for family in registry.collect()) == [
        "kafetrain_dead_keys",
        "kafetrain_dead_letters",
        "kafetrain_handler_seconds",
        "kafetrain_malformed_records",
        "kafetrain_oldest_pending_seconds",
        "kafetrain_orphans",
        "kafetrain_pending_locks",
        "kafetrain_records",
        "kafetrain_restore_seconds",
    ]


class Traced:
    def __init__(self) -> None:
        self.exporter, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = provider.get_tracer("test")
        self.middleware = TracingMiddleware(provider, group_id="billing")

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name.startswith("process")]


@pytest.mark.parametrize(("handler", "outcome", "ran"), ENDS)
def test_each_run_is_a_span_that_says_how_it_ended_and_quotes_nothing(handler: Any, outcome: str, ran: bool) -> None:
    traced = Traced()
    called(traced.middleware, handler, key=b"secret", value=b"secret", offset=7)
    (span,) = traced.spans
    assert span.name == "process orders"
    assert span.parent is None
    assert span.attributes is not None
    assert span.attributes["kafetrain.outcome"] == outcome
    assert span.attributes["messaging.kafka.offset"] == 7
    assert span.attributes["messaging.consumer.group.name"] == "billing"
    failed = outcome in ("failed", "redirected", "dead-lettered")
    assert (span.status.status_code is StatusCode.ERROR) is failed
    assert "secret" not in span.to_json()
    assert "a payload" not in span.to_json()


def test_a_run_is_linked_to_the_producers_span_and_to_the_run_before() -> None:
    traced = Traced()
    with traced.tracer.start_as_current_span("produce") as produced:
        headers = trace_headers()
    assert [name for name, _ in headers] == ["traceparent"]
    called(traced.middleware, fail, headers=headers)
    called(traced.middleware, lambda _: None, headers=[*headers, ("x-retry-attempt", b"1")])
    called(traced.middleware, lambda _: None, offset=1)
    first, second, unrelated = traced.spans
    assert ids(first) == [format_span_id(produced.get_span_context().span_id)]
    assert ids(second) == [*ids(first), format_span_id(first.context.span_id)]
    assert ids(unrelated) == []
    assert second.attributes is not None
    assert second.attributes["kafetrain.attempt"] == 1


def ids(span: ReadableSpan) -> list[str]:
    return [format_span_id(link.context.span_id) for link in span.links]


def test_a_span_of_the_handlers_own_is_inside_of_the_runs() -> None:
    traced = Traced()

    def handle(_: Record) -> None:
        with traced.tracer.start_as_current_span("query"):
            pass

    called(traced.middleware, handle)
    query, run = traced.exporter.get_finished_spans()
    assert query.parent is not None
    assert query.parent.span_id == run.context.span_id


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("Metrics", "prometheus_client", "metrics"), ("trace_headers", "opentelemetry", "otel")],
)
def test_without_its_package_it_says_what_to_install(
    name: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for loaded in [module for module in sys.modules if module.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, loaded)
    for module in ("metrics", "tracing"):
        monkeypatch.delitem(sys.modules, f"kafetrain.telemetry.{module}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigurationError, match=rf"needs {package}: pip install 'kafetrain\[{extra}\]'"):
        getattr(kafetrain.telemetry, name)
