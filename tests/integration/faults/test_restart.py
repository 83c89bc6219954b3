"""A new process goes on where the one before it stopped, in good order or not."""

from __future__ import annotations

import pytest

from tests.integration.faults.conftest import ScenarioFactory
from tests.integration.faults.worker import Plan

pytestmark = pytest.mark.kafka


def test_sigterm_ends_a_process_with_0_after_all_that_ran_has_ended_and_is_committed(
    new_scenario: ScenarioFactory,
) -> None:
    scenario = new_scenario(work_ms=20, concurrency=1)
    scenario.produce([Plan()] * 80)
    process = scenario.start()
    scenario.wait_for("some records have ended", lambda history: history.count("ended") > 10)
    process.stop()
    history = scenario.history()
    assert history.count("drained") == 1
    assert history.count("started") == history.count("ended") < 80, "it stops in the middle, and nothing is cut off"
    committed = scenario.cluster.committed(scenario.job.group, scenario.topic)
    assert sum(at for at, _ in committed.values()) == history.count("ended")
    scenario.finish(scenario.start()).nothing_twice()


def test_locks_survive_a_restart_and_a_clean_stop_burns_no_attempt(new_scenario: ScenarioFactory) -> None:
    scenario = new_scenario(backoff_ms=50, work_ms=30, concurrency=1)  # retries that are due wait for their thread
    scenario.produce([Plan(3), Plan(1), Plan(), Plan(2), Plan(-1), Plan(), Plan(9)] * 8)
    first = scenario.start()
    scenario.wait_for("retries have failed", lambda history: history.count("failed", retry=True) >= 5)
    first.stop()
    assert scenario.pending(), "the first process is stopped in the middle of its retries"
    history = scenario.finish(scenario.start())
    assert history.killed == 0
    history.retries_end_once()
