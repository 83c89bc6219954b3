"""As `test_kill`, with `delivery="transactional"`: and nothing is twice in the topics."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kafetrain.testing import Broker
from tests.integration.faults.scenario import Scenario
from tests.integration.faults.test_kill import PLANS, SIDE_BY_SIDE, Case
from tests.integration.faults.worker import Point
from tests.integration.twice import nothing_twice

pytestmark = pytest.mark.kafka

CASES = (
    Case(Point.HANDLER, nth=12),
    Case(Point.BEFORE_LOCK),
    Case(Point.BEFORE_RETRY_RECORD),
    Case(Point.BEFORE_SOURCE_COMMIT),
    Case(Point.BEFORE_END_OF_TRANSACTION, nth=2),
    Case(Point.BEFORE_END_OF_TRANSACTION, nth=7, free_on_dlq=True),
    Case(Point.AFTER_END_OF_TRANSACTION, nth=2, free_on_dlq=True),
    Case(Point.AFTER_END_OF_TRANSACTION, nth=7),
    Case(Point.RETRY_HANDLER),
    Case(Point.BEFORE_NEXT_ATTEMPT),
    Case(Point.BEFORE_TOMBSTONE),
    Case(Point.BEFORE_RETRY_COMMIT),
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
    options: dict[str, Any] = {"free_on_dlq": case.free_on_dlq, "delivery": "transactional"}
    with contextlib.closing(Scenario(broker, topic, folder, **options)) as scenario:
        scenario.produce(PLANS)
        killed = scenario.start(kill_at=case.point, kill_at_nth=case.nth)
        code = killed.wait()
        assert code == -signal.SIGKILL, f"it ended with {code} and not at its point.\n{killed.tail()}"
        scenario.finish(scenario.start())
        nothing_twice(broker, topic)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_after_a_kill_nothing_is_lost_or_out_of_order_or_twice_in_the_topics(
    case: Case, played: Mapping[Case, Future[None]]
) -> None:
    played[case].result()
