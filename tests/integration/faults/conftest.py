"""Scenarios on the session's broker."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kafetrain.testing import Broker
from tests.integration.faults.scenario import Scenario

ScenarioFactory = Callable[..., Scenario]


@pytest.fixture(autouse=True, scope="session")
def quiet_kafka() -> Iterator[None]:
    """kafka-python says each refused connection several times: a failed test's report would be nothing else.

    What is captured would also keep its errors alive, and those their sockets.
    """
    log = logging.getLogger("kafka")
    level = log.level
    log.setLevel(logging.CRITICAL)
    yield
    log.setLevel(level)


@pytest.fixture
def new_scenario(kafetrain_broker: Broker, tmp_path: Path) -> Iterator[ScenarioFactory]:
    """Scenarios with a topic each. They end with the test."""
    if not kafetrain_broker.is_real:
        pytest.skip("a mock has no groups that a killed member is missed in, and no settings of topics")
    made: list[Scenario] = []

    def new(partitions: int = 2, **values: Any) -> Scenario:
        topic = kafetrain_broker.create_unique_topic(partitions, prefix="orders")
        made.append(Scenario(kafetrain_broker, topic, tmp_path, **values))
        return made[-1]

    yield new
    for scenario in made:
        scenario.close()
