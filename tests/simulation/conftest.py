"""Loops that never wait, and how long hypothesis looks.

Where nothing else is said, it looks at the same runs each time; `--hypothesis-profile=long` looks for hours at others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from kafetrain.retry import loop
from kafetrain.topic_setup import PreparedTopics, prepare_topics
from kafetrain.tracker import reader, transactor
from tests.simulation.sim import Sim
from tests.simulation.stepped import ImpatientClock, PausingSequencer, SteppedThread, result_of

_SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

settings.register_profile(
    "simulation",
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=_SLOW_IS_FINE,
)
settings.register_profile(
    "long", max_examples=20_000, stateful_step_count=100, deadline=None, suppress_health_check=_SLOW_IS_FINE
)


@pytest.fixture(autouse=True, scope="package")
def _loops_never_wait() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "BUSY_WAIT_S", 0.0)
        patch.setattr(loop, "BUSY_WAIT_AT_MOST_S", 0.0)
        patch.setattr(reader, "prepare_topics", _prepare_at_once)
        patch.setattr(Future, "result", result_of)
        patch.setattr(transactor, "POLL", timedelta(0))
        patch.setattr(transactor, "LoopThread", SteppedThread)
        patch.setattr(transactor, "Sequencer", PausingSequencer)
        yield


@pytest.fixture(params=["at-least-once", "transactional"])
def new_sim(request: pytest.FixtureRequest) -> Iterator[Callable[..., Sim]]:
    """Makes a `Sim` with these settings, of either delivery."""
    sims: list[Sim] = []

    def new(**settings: Any) -> Sim:
        sims.append(Sim(delivery=request.param, **settings))
        return sims[-1]

    yield new
    for sim in sims:
        sim.close()


def _prepare_at_once(*args: Any, clock: Any) -> PreparedTopics:
    """Or not at all: it would wait half a minute for brokers that are gone, and everybody with it."""
    return prepare_topics(*args, clock=ImpatientClock(), wait=lambda seconds: None)
