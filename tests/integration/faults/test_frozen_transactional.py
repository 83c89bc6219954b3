"""A zombie in transactional mode: frozen (SIGSTOP) in its handlers past its session, it goes on and changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.faults.conftest import ScenarioFactory
from tests.integration.faults.history import History
from tests.integration.faults.scenario import Scenario
from tests.integration.faults.worker import Plan
from tests.integration.twice import committed_records, nothing_twice

pytestmark = pytest.mark.kafka

LONG_MS = 1_500


def in_the_topics(scenario: Scenario) -> dict[str, list[Any]]:
    """All that counts: of each topic what a read_committed reader is given."""
    found: dict[str, list[Any]] = {}
    for name in ("redirect", "retry", "dlq"):
        records = committed_records(scenario.broker, f"{name}-{scenario.topic}")
        found[name] = [(record.partition, record.offset, record.key, record.value) for record in records]
    return found


def committed(scenario: Scenario) -> dict[tuple[str, int], int]:
    """Of both groups, by topic and partition."""
    return {
        (topic, partition): at
        for group, topic in (
            (scenario.job.group, scenario.topic),
            (f"{scenario.job.group}-retry", f"retry-{scenario.topic}"),
        )
        for partition, (at, _) in scenario.cluster.committed(group, topic).items()
    }


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
def test_what_a_zombie_writes_is_refused_and_its_successors_keep_the_order(
    new_scenario: ScenarioFactory, client: str
) -> None:
    """It holds a first run that will fail, and a retry that will fail; both keys have followers."""
    scenario = new_scenario(2, keys=2, client=client, delivery="transactional", concurrency=2)
    # Two keys in turn, each in a partition of its own: a retry of the one, a first run of the other.
    scenario.produce([Plan(2, work_ms=LONG_MS), Plan(work_ms=LONG_MS), Plan(1), Plan(1, work_ms=2 * LONG_MS)])
    scenario.produce([Plan(), Plan(1), Plan(1), Plan()])
    frozen = scenario.start()

    def in_both_handlers(history: History) -> bool:
        running = {e.place: e for e in history.events if e.kind == "started"}
        for event in history.events:
            if event.kind in ("ended", "failed") and event.attempt == running[event.place].attempt:
                running.pop(event.place, None)
        return {event.retry for event in running.values()} == {True, False}

    scenario.wait_for("a first run and a retry are under way", in_both_handlers)
    scenario.expect_zombie(frozen, frozen.freeze)
    other = scenario.start()
    scenario.wait_until_given_up(frozen)
    scenario.wait_until_settled()
    before, was_committed = in_the_topics(scenario), committed(scenario)
    events = len(scenario.history().events)
    frozen.thaw()
    scenario.wait_for("its handlers go on", lambda history: len(history.events) >= events + 2)
    scenario.wait_until_back(frozen)
    scenario.wait_until_settled()
    frozen.terminate()
    assert frozen.wait() == 0, frozen.tail()
    assert in_the_topics(scenario) == before
    # The new owner of a partition may commit past the markers behind its last record.
    now_committed = committed(scenario)
    assert all(now_committed[place] >= at for place, at in was_committed.items())
    other.stop()
    nothing_twice(scenario.broker, scenario.topic)
    late = [event for event in scenario.history().events if event.late]
    assert {event.kind for event in late} <= {"failed", "ended", "drained", "gone"}, "it started nothing"
    owners = History([event for event in scenario.history().events if not event.late], scenario._zombies)
    owners.no_loss(scenario.plans, ())
    owners.key_order(scenario.chains)
