"""What else goes wrong while an instance closes."""

from __future__ import annotations

from kafetrain.errors import WriteFailedError
from kafetrain.record import MessageId
from tests.simulation.sim import TOPIC, Plan, Sim


def test_a_write_that_fails_while_closing_keeps_no_other_retry_from_its_end() -> None:
    """Its key stays as it was. What runs besides ends, is written and committed, as without it."""
    sim = Sim(concurrency=2)
    try:
        instance = sim.start()
        sim.settle()
        failing, _ = [sim.write(key, Plan(slow=True, fails=1)) for key in (b"fails", b"ends")]
        sim.settle()
        sim.advance(11)
        sim.flow(finishing=False)
        fails, ends = sorted(sim.running, key=lambda running: running.record.offset)
        sim.finish(fails)
        sim.step(instance, "retry")
        (tombstone,) = sim.writes()
        looks = 0

        def meanwhile() -> None:
            nonlocal looks
            looks += 1
            if looks == 1:
                tombstone.fail()
            elif looks == 3:
                sim.finish(ends)
            sim.acknowledge_all(instance.name)

        instance.stop(meanwhile)
        assert isinstance(instance.error, WriteFailedError)
        assert set(sim.cluster.locks(sim.names.redirect)) == {str(MessageId("g", TOPIC, *failing.place))}
        sim.kill(instance)
        sim.drain()
        assert sim.journal.offsets("started", b"ends") == [1, 1]
    finally:
        sim.close()
