"""Three instances under load: any of them is killed at any moment, or replaced in good order, again and again."""

from __future__ import annotations

import os
import random

import pytest

from tests.integration.faults.conftest import ScenarioFactory
from tests.integration.faults.history import History
from tests.integration.faults.worker import Plan
from tests.waiting import wait_for

pytestmark = pytest.mark.kafka

PARTITIONS = 6
PLANS = (Plan(1), Plan(), Plan(), Plan(2), Plan(work_ms=100), Plan(), Plan(), Plan(1, work_ms=100), Plan(), Plan())
KILLS = 5
SEED = int(os.environ.get("KAFETRAIN_TEST_SEED", random.randrange(1 << 32)))


def test_instances_that_are_killed_at_random_lose_nothing(new_scenario: ScenarioFactory) -> None:
    chance = random.Random(SEED)
    print(f"KAFETRAIN_TEST_SEED={SEED} kills at the same counts of events")
    scenario = new_scenario(PARTITIONS, keys=24, backoff_ms=100, work_ms=5)
    with scenario.producing(PLANS):
        running = [scenario.start() for _ in range(3)]
        for _ in range(KILLS):
            at = len(scenario.history().events) + chance.randint(20, 150)
            wait_for("they have gone on", lambda: len(scenario.history().events) > at)  # noqa: B023 - it is over by then
            running.pop(chance.randrange(len(running))).kill()
            running.append(scenario.start())
    last = running.pop()
    scenario.wait_until_settled()
    for process in running:
        process.stop()
    assert scenario.finish(last).killed == KILLS


def test_instances_that_are_replaced_one_after_the_other_burn_no_attempt_and_retry_nothing_twice(
    new_scenario: ScenarioFactory,
) -> None:
    scenario = new_scenario(PARTITIONS, keys=24, backoff_ms=100, work_ms=5)
    with scenario.producing(PLANS):
        running = [scenario.start() for _ in range(3)]
        for _ in range(3):

            def all_retry(history: History) -> bool:
                return all(len(history.partitions(each.pid, retry=True)) >= 3 for each in running)

            scenario.wait_for("all run retries", all_retry)
            running.pop(0).stop()
            running.append(scenario.start())
        scenario.wait_for("all run retries", all_retry)
    last = running.pop()
    scenario.wait_until_settled()
    for process in running:
        process.stop()
    history = scenario.finish(last)
    assert history.killed == 0
    history.retries_end_once()
