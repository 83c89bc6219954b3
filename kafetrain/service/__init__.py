"""The retry service: tasks over HTTP, delivered to Kafka or webhooks with backoff.

    domain       what a task is                  imports nothing
    ports        store, destination, telemetry   imports the domain
    application  acceptance, dispatcher          imports both
    adapters     SQLite, Redis, HTTP, Kafka, web
    wiring       the one place that knows them all

`kafetrain serve` runs it; `Client` talks to it. Needs the extra `service`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kafetrain.service.client import Client, ServiceError, Submitted

__all__ = ["Client", "ServiceError", "Submitted"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from kafetrain.service.extra import needs_extra

    with needs_extra():
        from kafetrain.service import client
    return getattr(client, name)
