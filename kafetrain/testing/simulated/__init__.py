"""A Kafka cluster in memory for tests, fast and in the test's hands: see `SimulatedCluster`."""

from __future__ import annotations

from kafetrain.testing.simulated.client import SimulatedClient
from kafetrain.testing.simulated.clock import SimulatedClock
from kafetrain.testing.simulated.cluster import SimulatedCluster
from kafetrain.testing.simulated.coordinator import OngoingTransaction
from kafetrain.testing.simulated.faults import Asked, Fault, Hold, LoseAnswer, Refuse, Request, Script
from kafetrain.testing.simulated.log import SimulatedRecord
from kafetrain.testing.simulated.producer import Write
from kafetrain.testing.simulated.transaction import Transaction

__all__ = [
    "Asked",
    "Fault",
    "Hold",
    "LoseAnswer",
    "OngoingTransaction",
    "Refuse",
    "Request",
    "Script",
    "SimulatedClient",
    "SimulatedClock",
    "SimulatedCluster",
    "SimulatedRecord",
    "Transaction",
    "Write",
]
