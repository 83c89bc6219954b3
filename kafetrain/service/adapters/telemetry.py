"""Prometheus metrics, counts by minute for the page, and OpenTelemetry spans where that is installed."""

from __future__ import annotations

import time
from collections import Counter as Counts
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from kafetrain.service.domain.task import Attempt, State, Task

__all__ = ["ServiceTelemetry"]

DURATIONS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
LATENESS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300)

TRACED_FOR_S = 1.0
"""How long it is believed that there is no OpenTelemetry SDK, or that there is: asking takes as long as a span."""


class ServiceTelemetry:
    """A `Telemetry`. Metric names are public. `kinds` of destinations are told from the start, with zeros."""

    def __init__(self, kinds: Iterable[str] = ()) -> None:
        self._registry = registry = CollectorRegistry()
        self._created = Counter("kafka_retry_tasks_created", "Tasks accepted.", registry=registry)
        self._processed = Counter(
            "kafka_retry_tasks_processed",
            "Deliveries that ended, well or not.",
            ["destination_type"],
            registry=registry,
        )
        self._failed = Counter(
            "kafka_retry_tasks_failed", "Deliveries failed.", ["destination_type"], registry=registry
        )
        self._dead_lettered = Counter(
            "kafka_retry_tasks_dead_lettered", "Tasks that their dead destination has.", registry=registry
        )
        self._duration = Histogram(
            "kafka_retry_processing_duration_seconds",
            "Of one delivery.",
            ["destination_type"],
            buckets=DURATIONS_S,
            registry=registry,
        )
        self._lateness = Histogram(
            "kafka_retry_lateness_seconds", "From due to the delivery's begin.", buckets=LATENESS_S, registry=registry
        )
        self._depth = Gauge("kafka_retry_queue_depth", "Tasks in the store, by state.", ["state"], registry=registry)
        self._in_flight = Gauge(
            "kafka_retry_tasks_in_flight", "Tasks that this process has claimed.", registry=registry
        )
        for kind in kinds:
            for metric in (self._processed, self._failed, self._duration):
                metric.labels(kind)
        self._counts: Counts[str] = Counts()
        self._tracer, self._propagator, self._is_traced = _tracing()

    def created(self, count: int) -> None:
        self._created.inc(count)
        self._counts["created"] += count

    def begins(self, task: Task, late_s: float) -> None:
        self._lateness.observe(max(0.0, late_s))

    def ended(self, task: Task, attempt: Attempt) -> None:
        kind = task.destination_type
        self._processed.labels(kind).inc()
        self._duration.labels(kind).observe(attempt.seconds)
        if attempt.error is not None:
            self._failed.labels(kind).inc()
            self._counts["failed"] += 1
        elif task.state is State.DEAD_LETTERED:
            self._dead_lettered.inc()
            self._counts["dead_lettered"] += 1
        else:
            self._counts["delivered"] += 1

    def take_counts(self) -> Mapping[str, int]:
        """What happened since the last call."""
        counts, self._counts = self._counts, Counts()
        return counts

    def give_back(self, counts: Mapping[str, int]) -> None:
        """They could not be stored; they are in the next `take_counts`."""
        self._counts.update(counts)

    def exposition(self, depth: Mapping[State, int], in_flight: int) -> bytes:
        """The text that Prometheus reads."""
        for state, count in depth.items():
            self._depth.labels(state.value).set(count)
        self._in_flight.set(in_flight)
        return generate_latest(self._registry)

    def span(self, name: str, trace: str | None, **attributes: str | int) -> AbstractContextManager[str | None]:
        if self._tracer is None or not self._is_traced():
            return nullcontext(trace)
        return self._recorded(name, trace, attributes)

    @contextmanager
    def _recorded(self, name: str, trace: str | None, attributes: Mapping[str, str | int]) -> Iterator[str | None]:
        context = self._propagator.extract({"traceparent": trace}) if trace else None
        with self._tracer.start_as_current_span(name, context=context, attributes=attributes):
            carrier: dict[str, str] = {}
            self._propagator.inject(carrier)
            yield carrier.get("traceparent", trace)


def _tracing() -> tuple[Any, Any, Callable[[], bool]]:
    """A tracer, a propagator, and whether anybody wants spans: an SDK may be set up at any time."""
    try:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    except ImportError:
        return None, None, lambda: False

    answer, valid_until = False, 0.0

    def is_traced() -> bool:
        nonlocal answer, valid_until
        if (now := time.monotonic()) > valid_until:
            answer = not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
            valid_until = now + TRACED_FOR_S
        return answer

    return trace.get_tracer("kafetrain.service"), TraceContextTextMapPropagator(), is_traced
