"""The confluent client in processes that join, leave and are killed."""

from __future__ import annotations

import signal

import pytest

from tests.integration.faults.conftest import ScenarioFactory
from tests.integration.faults.kills import PLANS
from tests.integration.faults.scenario import Scenario
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


def test_members_join_and_leave_under_load(new_scenario: ScenarioFactory) -> None:
    scenario = new_scenario(4, keys=12, client="confluent", assignor="cooperative-sticky", backoff_ms=100, work_ms=5)
    join_and_leave(scenario, "confluent")


def test_members_with_the_one_client_and_with_the_other_share_a_group(new_scenario: ScenarioFactory) -> None:
    scenario = new_scenario(4, keys=12, client="kafka-python", backoff_ms=100, work_ms=5)
    join_and_leave(scenario, "confluent")


def join_and_leave(scenario: Scenario, second_client: str) -> None:
    with scenario.producing(LONG_PLANS):
        first = scenario.start()
        scenario.wait_for("the first process works alone", lambda history: works(history, first))
        second = scenario.start(client=second_client)
        scenario.wait_for("the second process takes part", lambda history: works(history, second))
        at = len(scenario.history().events)
        scenario.wait_for("both work", lambda h: works(h, first, since=at) and works(h, second, since=at))
        first.stop()
        at = len(scenario.history().events)
        scenario.wait_for("the second process works alone", lambda history: works(history, second, since=at))
    scenario.finish(second)
