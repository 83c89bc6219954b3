"""For tests of code that uses kafetrain: a Kafka broker that starts itself, and pytest fixtures for it.

Importing this costs nothing: clients, containers and Java are looked for when a broker is asked for.
"""

from __future__ import annotations

from kafetrain.testing.base import (
    Broker,
    BrokerKind,
    BrokerNotReadyError,
    NoBrokerError,
    UnsupportedByBrokerError,
)
from kafetrain.testing.broker import kafka_broker
from kafetrain.testing.embedded import EmbeddedBroker

__all__ = [
    "Broker",
    "BrokerKind",
    "BrokerNotReadyError",
    "EmbeddedBroker",
    "NoBrokerError",
    "UnsupportedByBrokerError",
    "kafka_broker",
]
