"""What the log says between two steps of a loop: what was noted by then is looked at again before anything is done."""

from __future__ import annotations

import json

from kafetrain.record import MessageId
from tests.simulation.sim import TOPIC, Plan, Sim


def test_a_dead_key_that_is_replayed_before_it_is_freed_stays_replayed() -> None:
    """Dead keys are freed in the loop's next step, and by then it is not dead any more."""
    sim = Sim(free_on_dlq=True)
    try:
        instance = sim.start()
        sim.settle()
        record = sim.write(b"k", Plan(fails=1))
        sim.settle()
        id = str(MessageId("g", TOPIC, *record.place))
        (pending,) = [entry.value for entry in sim.cluster.read(sim.names.redirect) if entry.key == id.encode()]
        assert pending is not None
        dead = json.dumps({**json.loads(pending), "state": "dead", "dlq_partition": 0, "dlq_offset": 0}).encode()
        sim.cluster.write(sim.names.redirect, id.encode(), dead)
        sim.step(instance, "reader")
        sim.repeat_retry_record(0)
        sim.cluster.write(sim.names.redirect, id.encode(), pending)
        sim.step(instance, "reader")
        sim.flow()
        assert set(sim.cluster.locks(sim.names.redirect)) == {id}
        sim.drain()
        assert sim.journal.offsets("ended") == [0]
    finally:
        sim.close()
