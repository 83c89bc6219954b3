"""Stores and destinations by name, from entry points: those of kafetrain, and what else is installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from kafetrain.errors import ConfigurationError
from kafetrain.service.ports.destination import Destination
from kafetrain.service.ports.store import TaskStore
from kafetrain.service.settings import ServiceSettings

__all__ = ["DESTINATIONS", "STORES", "make_destinations", "make_store"]

STORES = "kafetrain.service.stores"
DESTINATIONS = "kafetrain.service.destinations"


def make_store(settings: ServiceSettings) -> TaskStore:
    """That of the scheme of `STORE_URL`. Raises `ConfigurationError`."""
    found = {one.name: one for one in entry_points(group=STORES)}
    scheme = settings.store_scheme
    if scheme not in found:
        raise ConfigurationError(f"STORE_URL begins with {scheme!r}, which is none of {', '.join(sorted(found))}")
    store: TaskStore = _load(found[scheme])(settings)
    return store


def make_destinations(settings: ServiceSettings) -> Mapping[str, Destination]:
    """All that are installed, by `destination_type`."""
    return {one.name: _load(one)(settings) for one in sorted(entry_points(group=DESTINATIONS))}


def _load(one: EntryPoint) -> Callable[[ServiceSettings], Any]:
    try:
        found: Callable[[ServiceSettings], Any] = one.load()
    except Exception as error:
        raise ConfigurationError(
            f"{one.group} {one.name!r} ({one.value}) cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    return found
