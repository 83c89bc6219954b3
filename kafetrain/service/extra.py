"""What is said where the libraries of the service are not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kafetrain.errors import ConfigurationError

__all__ = ["needs_extra"]


@contextmanager
def needs_extra() -> Iterator[None]:
    """Around imports: one that is missing becomes a `ConfigurationError`."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "kafetrain":
            raise
        raise ConfigurationError(
            f"the retry service needs the extra `service` ({error.name} is not installed): "
            "pip install 'kafetrain[service]'"
        ) from error
