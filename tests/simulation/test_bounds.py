"""What is in memory of retries is bounded, also where far more than the bound is due at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from kafetrain import ConstantBackoff
from kafetrain.core.schedule import RetrySchedule
from tests.simulation.sim import Plan, Sim

NewSim = Callable[..., Sim]
BOUND = 4


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Records in memory, each time that one was fetched again."""
    seen: list[int] = []
    load: Callable[..., None] = RetrySchedule.load

    def load_and_look(schedule: RetrySchedule, *args: object) -> None:
        load(schedule, *args)
        seen.append(schedule.loaded_records)

    monkeypatch.setattr(RetrySchedule, "load", load_and_look)
    return seen


def test_what_is_due_at_once_is_fetched_again_as_far_as_there_is_room(new_sim: NewSim, loaded: list[int]) -> None:
    """Handlers take their time, so that nothing that was fetched leaves the memory again."""
    sim = new_sim(max_held_records=BOUND, concurrency=2, backoff=ConstantBackoff(timedelta(minutes=10)))
    sim.start()
    sim.settle()
    for at in range(5 * BOUND):
        sim.write(b"key-%d" % at, Plan(slow=True, fails=1))
        sim.flow(6)
    assert len(sim.journal.offsets("failed")) == 5 * BOUND
    sim.advance(600)
    sim.flow(finishing=False)
    assert 0 < len(sim.running) <= BOUND
    sim.drain()
    assert max(loaded) <= BOUND
    assert len(sim.journal.offsets("ended")) == 5 * BOUND
