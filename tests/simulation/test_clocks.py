"""A wall clock that somebody sets: due times are read from it, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from tests.simulation.sim import PAUSE_S, Plan, Sim

NewSim = Callable[..., Sim]


def test_a_pause_on_the_retry_side_takes_no_longer_when_the_clock_is_set_back(new_sim: NewSim) -> None:
    """The record has been due for two hours, and is an hour later."""
    sim = new_sim()
    reads = sim.start(without="retry")
    sim.write(b"k", Plan(fails=1))
    sim.flow()
    sim.advance(7_200)
    retries = sim.start(without="source")
    sim.plans[(0, 0)] = Plan(fails=1, pauses=1)
    sim.flow()
    assert sim.journal.offsets("started") == [0, 0]
    for instance in (reads, retries):
        instance.set_wall_clock(timedelta(hours=-1))
    sim.advance(PAUSE_S)
    sim.flow()
    assert sim.journal.offsets("ended") == [0]
    sim.drain()
