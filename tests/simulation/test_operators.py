"""Operators who ask for something at an unlucky moment. All promises are checked in each scenario."""

from __future__ import annotations

from kafetrain.core.control import Action
from tests.simulation.sim import Plan, Sim


def test_what_is_made_due_before_its_retry_record_is_written_still_gets_one() -> None:
    """A crash between the two; then the delivery is another, and an operator is quicker than the source."""
    sim = Sim(delivery="at-least-once")
    try:
        first = sim.start()
        sim.settle()
        sim.write(b"k", Plan(fails=1))
        sim.come_to_write(sim.names.retry)
        sim.kill(first)
        sim.expire_killed()
        sim.change(delivery="transactional")
        sim.start(without="source")
        sim.flow()
        sim.operate("g", Action.RETRY_NOW, b"k")
        sim.flow()
        (lock,) = sim.cluster.locks(sim.names.redirect).values()
        assert lock["due"] <= sim.clock.now_ms(), "it was made due"
        sim.drain()
        assert sim.journal.attempts(0) == [0, 1]
    finally:
        sim.close()
