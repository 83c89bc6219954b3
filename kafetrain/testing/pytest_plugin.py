"""pytest fixtures: a Kafka broker for the session and topics on it, a simulated cluster, a journal of handlers.

pytest loads this in every run on a machine where kafetrain is installed, so it imports nothing but pytest until
a fixture is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from kafetrain.testing.base import Broker
    from kafetrain.testing.journal import Journal
    from kafetrain.testing.simulated import SimulatedCluster

__all__ = ["TopicFactory", "kafetrain_broker", "kafetrain_journal", "kafetrain_simulated", "kafetrain_topic"]

_BROKER = pytest.StashKey["Broker"]()


class TopicFactory(Protocol):
    """What `kafetrain_topic` gives."""

    def __call__(self, partitions: int = 1, configs: Mapping[str, str] | None = None, *, prefix: str = "test") -> str:
        """Create a topic, every partition with a leader, and return its name: `{prefix}-` and 12 hex digits.

        `configs`: the topic's settings by their Kafka names. On the mock broker the test is skipped, with the
        reason, for what it cannot make: all but four partitions without settings.
        """


@pytest.fixture(scope="session")
def kafetrain_broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """The session's broker: see `kafetrain.testing.kafka_broker`. All tests share it; use topics of your own."""
    from kafetrain.testing.broker import kafka_broker

    with kafka_broker() as broker:
        request.config.stash[_BROKER] = broker
        yield broker


@pytest.fixture
def kafetrain_topic(kafetrain_broker: Broker) -> Iterator[TopicFactory]:
    """A function that creates topics on `kafetrain_broker`.

    They go with the broker, or at the end of the test where the broker stays.
    """
    from kafetrain.testing.base import UnsupportedByBrokerError

    created: list[str] = []

    def create(partitions: int = 1, configs: Mapping[str, str] | None = None, *, prefix: str = "test") -> str:
        try:
            name = kafetrain_broker.create_unique_topic(partitions, configs, prefix=prefix)
        except UnsupportedByBrokerError as error:
            pytest.skip(str(error))
        created.append(name)
        return name

    yield create
    if kafetrain_broker.kind == "address":
        for name in created:
            kafetrain_broker.delete_topic(name)


@pytest.fixture
def kafetrain_simulated() -> SimulatedCluster:
    """A Kafka cluster in memory, of this test alone: see `kafetrain.testing.SimulatedCluster`."""
    from kafetrain.testing.simulated import SimulatedCluster

    return SimulatedCluster()


@pytest.fixture
def kafetrain_journal() -> Journal:
    """An empty journal: wrap a handler with its `recording`."""
    from kafetrain.testing.journal import Journal

    return Journal()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say so where tests ran on a mock: their success means less."""
    broker = config.stash.get(_BROKER, None)
    if broker is not None and not broker.is_real:
        terminalreporter.write_line("kafetrain: these tests ran on a mock broker, not on Apache Kafka, because")
        for reason in broker.skipped:
            terminalreporter.write_line(f"  - {reason.splitlines()[0]}")
