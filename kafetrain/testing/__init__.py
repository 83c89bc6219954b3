"""For tests of code that uses kafetrain: a Kafka broker that starts itself, a cluster in memory whose faults the test
writes, the delivery promises as objects, and pytest fixtures for all of them.

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
from kafetrain.testing.events import BrokenPromise, Event, Standing, Written
from kafetrain.testing.journal import Journal
from kafetrain.testing.promises import (
    HonestAttempts,
    Independence,
    Isolation,
    KeyOrder,
    NoLoss,
    NoZombieLocks,
    Progress,
    Promise,
    all_promises,
)
from kafetrain.testing.simulated import (
    Hold,
    LoseAnswer,
    Refuse,
    Request,
    SimulatedClock,
    SimulatedCluster,
    Write,
)

__all__ = [
    "BrokenPromise",
    "Broker",
    "BrokerKind",
    "BrokerNotReadyError",
    "EmbeddedBroker",
    "Event",
    "Hold",
    "HonestAttempts",
    "Independence",
    "Isolation",
    "Journal",
    "KeyOrder",
    "LoseAnswer",
    "NoBrokerError",
    "NoLoss",
    "NoZombieLocks",
    "Progress",
    "Promise",
    "Refuse",
    "Request",
    "SimulatedClock",
    "SimulatedCluster",
    "Standing",
    "UnsupportedByBrokerError",
    "Write",
    "Written",
    "all_promises",
    "kafka_broker",
]
