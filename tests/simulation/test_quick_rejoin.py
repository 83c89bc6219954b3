"""A member that is thrown out and is back within one poll: its loop learns of both at once, in the next step.

So it does with kafka-python, which joins in the background. What the loop does until then means the former assignment.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kafetrain.testing.simulated.consumer import SimulatedConsumer
from tests.simulation.instance import SimulatedInstance
from tests.simulation.sim import Plan, Sim

NewSim = Callable[..., Sim]


@pytest.fixture(autouse=True)
def _joins_within_one_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_membership = SimulatedConsumer._keep_membership

    def lose_and_join(consumer: SimulatedConsumer) -> None:
        keep_membership(consumer)
        keep_membership(consumer)

    monkeypatch.setattr(SimulatedConsumer, "_keep_membership", lose_and_join)


def write_what_follows(sim: Sim, instance: SimulatedInstance) -> None:
    """Of retries that have ended: all is durable, and the loop has not heard of it."""
    sim.step(instance, "retry")
    for _ in range(20):
        sim.acknowledge_all()
        sim.step(instance, "writes")
        sim.step(instance, "retry transactions")


@pytest.mark.parametrize("side", ["source", "retry"])
def test_what_a_full_partition_resumes_too_late_is_lost_for_nobody(new_sim: NewSim, side: str) -> None:
    """It was paused at its bound and falls below in the very step: what it resumes is the new assignment, whose locks
    are not restored. What that delivers has to come again."""
    sim = new_sim(max_held_records=2, concurrency=2)
    instance = sim.start()
    sim.settle()
    for key in (b"a", b"b", b"c", b"d"):
        sim.write(key, Plan(slow=True, fails=int(side == "retry")))
    if side == "retry":
        sim.settle()
        sim.advance(11)
    sim.flow(finishing=False)
    (part,) = getattr(instance, side)._owned
    assert part.full
    for running in tuple(sim.running):
        sim.finish(running)
    if side == "retry":
        write_what_follows(sim, instance)
    sim.expire(instance)
    sim.step(instance, side)
    assert not part.full
    sim.step(instance, side)
    sim.drain()
    assert sorted(set(sim.journal.offsets("ended"))) == [0, 1, 2, 3]
