"""Cases in which a process is killed between two steps of the protocol, and another one goes on."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kafetrain.testing import Broker
from tests.integration.faults.scenario import Scenario
from tests.integration.faults.worker import Plan

__all__ = ["PLANS", "Case", "play", "played_side_by_side"]

SIDE_BY_SIDE = 6
# Of each key: two that recover, one of them late; one that dies later on, and two behind it.
PLANS = [Plan()] * 8 + [Plan(1)] * 8 + [Plan(), Plan(-1)] * 4 + [Plan(3)] * 8 + [Plan(9), Plan()] * 4 + [Plan(1)] * 16


class Case(NamedTuple):
    point: str
    nth: int = 3
    free_on_dlq: bool = False
    client: str = ""
    """Empty: the one under test."""

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.point, "dead keys are freed" * self.free_on_dlq, self.client)))


def play(
    case: Case,
    broker: Broker,
    folder: Path,
    check: Callable[[Broker, str], object] = lambda broker, topic: None,
    **job: Any,
) -> None:
    """Kill a process at the case's point, let another one go on to the end, and check the promises."""
    topic = broker.create_unique_topic(2, prefix="orders")
    job |= {"client": case.client} if case.client else {}
    with contextlib.closing(Scenario(broker, topic, folder, free_on_dlq=case.free_on_dlq, **job)) as scenario:
        scenario.produce(PLANS)
        killed = scenario.start(kill_at=case.point, kill_at_nth=case.nth)
        code = killed.wait()
        assert code == -signal.SIGKILL, f"it ended with {code} and not at its point.\n{killed.tail()}"
        scenario.finish(scenario.start())
        check(broker, topic)


def played_side_by_side(play: Callable[[Case, Broker, Path], None]) -> Any:
    """A fixture `played` of a module whose tests have a parameter `case`: what became of each."""

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

    return played
