"""An instance is frozen (SIGSTOP) for longer than its session, and then goes on where it was."""

from __future__ import annotations

import pytest

from tests.integration.faults.conftest import ScenarioFactory
from tests.integration.faults.history import History
from tests.integration.faults.worker import Plan

pytestmark = pytest.mark.kafka

PARTITIONS = 4
PLANS = (Plan(1), Plan(), Plan(), Plan(2), Plan(work_ms=300), Plan(), Plan(1, work_ms=300), Plan())


def test_what_a_frozen_instance_had_is_taken_over_and_when_it_thaws_nothing_is_lost_or_stays_locked(
    new_scenario: ScenarioFactory,
) -> None:
    """Keys that it still runs or writes then are in no order with what its successor did meanwhile. All others are."""
    scenario = new_scenario(PARTITIONS, keys=24, backoff_ms=100, work_ms=5)
    with scenario.producing(PLANS):
        frozen, other = scenario.start(), scenario.start()

        def both_retry(history: History) -> bool:
            return all(len(history.partitions(each.pid, retry=True)) >= 5 for each in (frozen, other))

        scenario.wait_for("both run retries", both_retry)
        scenario.expect_zombie(frozen, frozen.freeze)
        scenario.wait_until_given_up(frozen)
        at = len(scenario.history().events)
        scenario.wait_for(
            "the other one has taken over",
            lambda history: {e.partition for e in history.events[at:] if e.pid == other.pid} == set(range(PARTITIONS)),
        )
        frozen.thaw()
        scenario.wait_until_back(frozen)
    scenario.wait_until_settled()
    frozen.terminate()
    assert frozen.wait() == 0 or frozen.tail(1).startswith("kafetrain.errors.WriteFailedError: "), frozen.tail()
    scenario.finish(other)
