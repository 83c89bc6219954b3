"""A process is killed between two steps of the protocol; the next one goes on, and no promise is broken."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from kafetrain.testing import Broker
from tests.integration.faults.scenario import Scenario
from tests.integration.faults.worker import Plan, Point

pytestmark = pytest.mark.kafka

SIDE_BY_SIDE = 6
# Of each key: two that recover, one of them late; one that dies later on, and two behind it.
PLANS = [Plan()] * 8 + [Plan(1)] * 8 + [Plan(), Plan(-1)] * 4 + [Plan(3)] * 8 + [Plan(9), Plan()] * 4 + [Plan(1)] * 16


class Case(NamedTuple):
    point: str
    nth: int = 3
    free_on_dlq: bool = False

    def __str__(self) -> str:
        return f"{self.point}{', dead keys are freed' * self.free_on_dlq}"


CASES = (
    Case(Point.HANDLER, nth=12),
    Case(Point.BEFORE_LOCK),
    Case(Point.BEFORE_RETRY_RECORD),
    Case(Point.BEFORE_SOURCE_COMMIT, nth=1),
    Case(Point.RETRY_HANDLER),
    Case(Point.BEFORE_NEXT_ATTEMPT),
    Case(Point.BEFORE_TOMBSTONE),
    Case(Point.BEFORE_RETRY_COMMIT, nth=1),
    Case(Point.BEFORE_END_OF_DEAD),
    Case(Point.BEFORE_END_OF_DEAD, free_on_dlq=True),
    Case(Point.BEFORE_END_OF_PARKED),
)


@pytest.fixture(scope="module")
def played(
    request: pytest.FixtureRequest, kafetrain_broker: Broker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[Case, Future[None]]]:
    """The cases that were asked for, several side by side: mostly they wait for a lost member's session."""
    if not kafetrain_broker.is_real:
        pytest.skip("a mock has no groups that a killed member is missed in")
    folder = tmp_path_factory.mktemp("killed")
    cases = [item.callspec.params["case"] for item in request.session.items if item.path == request.path]  # type: ignore[attr-defined]  # of parametrized items, and all here are
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        yield {case: pool.submit(play, case, kafetrain_broker, folder) for case in cases}


def play(case: Case, broker: Broker, folder: Path) -> None:
    topic = broker.create_unique_topic(2, prefix="orders")
    with contextlib.closing(Scenario(broker, topic, folder, free_on_dlq=case.free_on_dlq)) as scenario:
        scenario.produce(PLANS)
        killed = scenario.start(kill_at=case.point, kill_at_nth=case.nth)
        code = killed.wait()
        assert code == -signal.SIGKILL, f"it ended with {code} and not at its point.\n{killed.tail()}"
        scenario.finish(scenario.start())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_after_a_kill_the_next_process_loses_nothing_and_keeps_the_order(
    case: Case, played: Mapping[Case, Future[None]]
) -> None:
    played[case].result()
