"""Processes join and leave while keys are in retry, and the production goes on."""

from __future__ import annotations

import pytest

from tests.integration.faults.conftest import ScenarioFactory
from tests.integration.faults.history import History
from tests.integration.faults.scenario import Process
from tests.integration.faults.worker import Plan

pytestmark = pytest.mark.kafka

PARTITIONS = 4
# Three in ten fail, and two take so long that they run while partitions change hands.
PLANS = (Plan(1), Plan(), Plan(), Plan(2), Plan(work_ms=300), Plan(), Plan(), Plan(1, work_ms=300), Plan(), Plan())


def works(history: History, process: Process, *, since: int = 0) -> bool:
    """Has it begun several records, and several retries, after that many events?"""
    recent = History(history.events[since:])
    return all(len(recent.partitions(process.pid, retry=retry)) >= 5 for retry in (False, True))


@pytest.mark.parametrize("assignor", ["crossed", "cooperative-sticky"])
def test_members_join_leave_and_die_under_load(new_scenario: ScenarioFactory, assignor: str) -> None:
    scenario = new_scenario(PARTITIONS, keys=12, assignor=assignor, backoff_ms=100, work_ms=5)
    with scenario.producing(PLANS):
        first = scenario.start()
        scenario.wait_for("the first process works alone", lambda history: works(history, first))
        second = scenario.start()
        scenario.wait_for("the second process takes part", lambda history: works(history, second))
        at = len(scenario.history().events)
        scenario.wait_for("both work", lambda h: works(h, first, since=at) and works(h, second, since=at))
        if assignor == "crossed":
            history = scenario.history()
            consumed, retried = (set(history.partitions(second.pid, retry=retry)) for retry in (False, True))
            assert consumed.isdisjoint(retried), "the retries of a partition are another process's"
        first.stop()
        at = len(scenario.history().events)
        scenario.wait_for("the second process works alone", lambda history: works(history, second, since=at))
        third = scenario.start()
        scenario.wait_for("the third process takes part", lambda history: works(history, third))
        before_the_kill = scenario.history()
        second.kill()
        at = len(scenario.history().events)
        scenario.wait_for(
            "the third process has taken over",
            lambda history: {e.partition for e in history.events[at:] if e.pid == third.pid} == set(range(PARTITIONS)),
        )
    scenario.finish(third)
    before_the_kill.retries_end_once()
