"""The client that the settings name. The library is imported here and not before: only one of them is needed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from kafetrain.client.ports import Client
from kafetrain.errors import ConfigurationError

if TYPE_CHECKING:
    from kafetrain.settings import Settings

__all__ = ["client_for"]


def client_for(settings: Settings) -> Client:
    """Builds nothing yet. `ConfigurationError` where the library is not installed."""
    if settings.client == "confluent":
        if find_spec("confluent_kafka") is None:
            raise ConfigurationError(
                "client 'confluent' needs confluent-kafka, which is not installed: pip install 'kafetrain[confluent]'"
            )
        from kafetrain.client.confluent import ConfluentClient

        return ConfluentClient(settings)
    from kafetrain.client.kafka_python import KafkaPythonClient

    return KafkaPythonClient(settings)
