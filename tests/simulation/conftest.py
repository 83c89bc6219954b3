"""Loops that never wait, and how long hypothesis looks.

Where nothing else is said, it looks at the same runs each time; `--hypothesis-profile=long` looks for hours at others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.simulation.sim import Sim
from tests.simulation.unhurried import loops_never_wait

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
    with loops_never_wait():
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
