"""Metrics for Prometheus and traces for OpenTelemetry, each where its extra is installed."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kafetrain.errors import ConfigurationError

if TYPE_CHECKING:
    from kafetrain.telemetry.metrics import Metrics
    from kafetrain.telemetry.tracing import TracingMiddleware, trace_headers

__all__ = ["Metrics", "TracingMiddleware", "trace_headers"]

_WHERE = {
    "Metrics": ("metrics", "prometheus_client", "metrics"),
    "TracingMiddleware": ("tracing", "opentelemetry", "otel"),
    "trace_headers": ("tracing", "opentelemetry", "otel"),
}
"""Module, package that it needs, extra that has it."""


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, package, extra = _WHERE[name]
    try:
        return getattr(import_module(f"{__name__}.{module}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
    raise ConfigurationError(f"kafetrain.telemetry.{name} needs {package}: pip install 'kafetrain[{extra}]'")
