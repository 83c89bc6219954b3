"""Traces for OpenTelemetry: a span for each run of a handler, linked to the span that produced the record.

Links and not parents: what is produced once may be consumed by many groups, much later, and again in a retry. Each run
of a record is a span of its own, linked to the producer's, whose headers the record keeps through its retries, and to
the run before, as far as this process knows it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, TracerProvider

from kafetrain.outcome import Outcome
from kafetrain.record import Handler, Record, get_retry_attempt, header
from kafetrain.telemetry.outcomes import FAILED, PAUSED, observe

__all__ = ["TracingMiddleware", "trace_headers"]

REMEMBERED = 10_000
"""Failed runs that a later one may be linked to."""

_FAILURES = frozenset({FAILED, Outcome.REDIRECTED.value, Outcome.DEAD_LETTERED.value})


class TracingMiddleware:
    """A middleware, to be put outermost. The span is the current one while the handler runs.

    `provider`: the global one if not given. Spans name topic, partition, offset, attempt and outcome; never a key, a
    value or the text of an error. Any thread.
    """

    skips_successes = False

    def __init__(self, provider: TracerProvider | None = None, *, group_id: str | None = None) -> None:
        self._tracer = trace.get_tracer("kafetrain", tracer_provider=provider)
        self._group_id = group_id
        # Each operation on it is atomic.
        self._failed: OrderedDict[tuple[str, int, int], SpanContext] = OrderedDict()

    def __call__(self, record: Record, call_next: Handler) -> object:
        span = self._tracer.start_span(
            f"process {record.topic}",
            context=Context(),  # a root: what happens to be current on this thread has nothing to do with it
            kind=SpanKind.CONSUMER,
            attributes=self._attributes(record),
            links=self._links(record),
        )

        def tell(outcome: str, error: BaseException | None) -> None:
            self._end(record, span, outcome, error)

        with trace.use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False):
            return observe(record, call_next, tell)

    def _end(self, record: Record, span: Span, outcome: str, error: BaseException | None) -> None:
        span.set_attribute("kafetrain.outcome", outcome)
        if outcome in _FAILURES:
            span.set_status(Status(StatusCode.ERROR, None if error is None else type(error).__name__))
            self._failed[_place(record)] = span.get_span_context()
            while len(self._failed) > REMEMBERED:
                self._failed.popitem(last=False)
        elif outcome != PAUSED:
            self._failed.pop(_place(record), None)
        if error is not None:
            span.set_attribute("error.type", type(error).__name__)
        span.end()

    def _attributes(self, record: Record) -> Mapping[str, str | int]:
        attributes: dict[str, str | int] = {
            "messaging.system": "kafka",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": record.topic,
            "messaging.destination.partition.id": str(record.partition),
            "messaging.kafka.offset": record.offset,
            "kafetrain.attempt": get_retry_attempt(record),
        }
        if self._group_id is not None:
            attributes["messaging.consumer.group.name"] = self._group_id
        return attributes

    def _links(self, record: Record) -> list[Link]:
        produced = trace.get_current_span(propagate.extract(record, Context(), _FROM_HEADERS)).get_span_context()
        contexts = [produced, self._failed.get(_place(record))]
        return [Link(context) for context in contexts if context is not None and context.is_valid]


def trace_headers() -> list[tuple[str, bytes]]:
    """Headers that tell a consumer of the current span: for what a producer sends, inside of it."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return [(name, value.encode()) for name, value in carrier.items()]


class _FromHeaders(Getter[Record]):
    def get(self, carrier: Record, key: str) -> list[str] | None:
        text = header(carrier, key)
        return None if text is None else [text]

    def keys(self, carrier: Record) -> list[str]:
        return [name for name, _ in carrier.headers or ()]


_FROM_HEADERS = _FromHeaders()


def _place(record: Record) -> tuple[str, int, int]:
    return record.topic, record.partition, record.offset
