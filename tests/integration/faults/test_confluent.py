"""The confluent client in processes that join, leave and are killed."""

from __future__ import annotations

import signal

import pytest

from tests.integration.faults.conftest import ScenarioFactory
from tests.integration.faults.test_kill import PLANS
from tests.integration.faults.test_rebalance import PLANS as LONG_PLANS
from tests.integration.faults.test_rebalance import works
from tests.integration.faults.worker import Point

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize("point", [Point.BEFORE_RETRY_RECORD, Point.BEFORE_TOMBSTONE])
def test_after_a_kill_the_next_process_loses_nothing_and_keeps_the_order(
    new_scenario: ScenarioFactory, point: str
) -> None:
    scenario = new_scenario(client="confluent")
    scenario.produce(PLANS)
    killed = scenario.start(kill_at=point, kill_at_nth=3)
    assert killed.wait() == -signal.SIGKILL, killed.tail()
    scenario.finish(scenario.start())


@pytest.mark.parametrize("assignor", ["", "cooperative-sticky"])
def test_members_join_and_leave_under_load(new_scenario: ScenarioFactory, assignor: str) -> None:
    scenario = new_scenario(4, keys=12, client="confluent", assignor=assignor, backoff_ms=100, work_ms=5)
    with scenario.producing(LONG_PLANS):
        first = scenario.start()
        scenario.wait_for("the first process works alone", lambda history: works(history, first))
        second = scenario.start()
        scenario.wait_for("the second process takes part", lambda history: works(history, second))
        first.stop()
        at = len(scenario.history().events)
        scenario.wait_for("the second process works alone", lambda history: works(history, second, since=at))
    scenario.finish(second)
