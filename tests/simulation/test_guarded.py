"""What the tracker's mutex guards is never touched without it: other threads write there as well."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from kafetrain import ConstantBackoff
from kafetrain.core.control import Action
from kafetrain.core.schedule import RetrySchedule
from tests.simulation.sim import Plan, Sim

NewSim = Callable[..., Sim]
GUARDED = ("hold", "holds", "get", "drop", "touch", "touch_all", "pop_due", "shed", "want", "wanted", "load")


@pytest.fixture
def guards(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Mutexes of which one has to be held."""
    mutexes: list[Any] = []

    def checked(name: str) -> Callable[..., object]:
        call: Callable[..., object] = getattr(RetrySchedule, name)

        def call_guarded(*args: object) -> object:
            assert not mutexes or any(mutex._is_owned() for mutex in mutexes), f"{name} without the mutex"
            return call(*args)

        return call_guarded

    for name in GUARDED:
        monkeypatch.setattr(RetrySchedule, name, checked(name))
    return mutexes


@pytest.mark.parametrize("action", [Action.RETRY_NOW, Action.SKIP])
def test_an_operator_moves_a_key_of_which_only_places_are_held(
    new_sim: NewSim, guards: list[Any], action: Action
) -> None:
    sim = new_sim(max_held_records=2, backoff=ConstantBackoff(timedelta(minutes=1)))
    guards.append(sim.start().tracker.state.mutex)
    sim.settle()
    for key in (b"k", b"other"):
        sim.write(key, Plan(fails=1))
    for _ in range(5):
        sim.write(b"k")
    sim.settle()
    sim.operate("g", action, b"k")
    sim.flow()
    assert sim.journal.offsets("ended", b"k")[0] == (2 if action is Action.SKIP else 0)
    sim.drain()


@pytest.mark.parametrize("action", [Action.RELEASE, Action.REPLAY])
def test_an_operator_moves_a_dead_key(new_sim: NewSim, guards: list[Any], action: Action) -> None:
    sim = new_sim(max_held_records=2, max_retries=0, free_on_dlq=False)
    guards.append(sim.start().tracker.state.mutex)
    sim.settle()
    sim.write(b"k", Plan(fails=1))
    for _ in range(6):
        sim.write(b"k")
    sim.settle()
    sim.operate("g", action, b"k")
    sim.drain()
