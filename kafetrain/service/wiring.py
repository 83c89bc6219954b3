"""The one place where ports and adapters meet."""

from __future__ import annotations

from starlette.types import ASGIApp

from kafetrain.service.adapters.telemetry import ServiceTelemetry
from kafetrain.service.adapters.web.app import create_app
from kafetrain.service.application.acceptance import Acceptance
from kafetrain.service.application.dispatcher import Dispatcher, DispatcherSettings
from kafetrain.service.application.service import Retention, RetryService
from kafetrain.service.plugins import make_destinations, make_store
from kafetrain.service.settings import ServiceSettings

__all__ = ["wire"]


def wire(settings: ServiceSettings) -> tuple[ASGIApp, RetryService]:
    """The application and the service that it starts and stops. Raises `ConfigurationError`."""
    store, destinations = make_store(settings), make_destinations(settings)
    telemetry = ServiceTelemetry(destinations)
    dispatcher = Dispatcher(
        store,
        destinations,
        telemetry,
        DispatcherSettings(settings.workers, settings.poll_interval.total_seconds(), settings.lease.total_seconds()),
    )
    acceptance = Acceptance(store, destinations, telemetry, dispatcher.wake)
    retention = Retention(settings.retention.total_seconds(), settings.dead_retention.total_seconds())
    service = RetryService(store, destinations, acceptance, dispatcher, telemetry, retention)
    return create_app(service, settings, telemetry), service
