"""What is known to go wrong with retries in systems like this one, and does not here: each failure has its scenario.

Which test holds which failure is in docs/pages/guarantees.md. All promises are checked in each scenario, beside what it
says itself.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from kafetrain import ConstantBackoff, ErrorTracker, KafkaConsumer, Record, Settings
from kafetrain.record import MessageId, get_retry_attempt
from kafetrain.testing.journal import Journal
from kafetrain.testing.simulated import SimulatedCluster
from tests.simulation.sim import TOPIC, Plan, Sim

NewSim = Callable[..., Sim]
OWN_HEADERS = [
    (name, b"mine") for name in ("id", "key", "topic", "partition", "offset", "attempt", "retry", "reason", "error")
]


def test_a_record_that_fails_twice_stays_before_its_followers_and_they_are_charged_nothing(new_sim: NewSim) -> None:
    sim = new_sim()
    sim.start()
    sim.settle()
    sim.write(b"k", Plan(fails=2))
    sim.write(b"k", Plan(fails=1))
    sim.write(b"k")
    sim.drain()
    assert sim.journal.offsets("started") == [0, 0, 0, 1, 1, 2]
    assert [sim.journal.attempts(offset) for offset in range(3)] == [[0, 1, 2], [0, 1], [0]]


def test_of_keys_that_take_turns_each_keeps_its_order_and_waits_for_no_other(new_sim: NewSim) -> None:
    """`A B A B`, and `A` fails longer."""
    sim = new_sim()
    sim.start()
    sim.settle()
    sim.write(b"a", Plan(fails=2))
    sim.write(b"b", Plan(fails=1))
    sim.write(b"a", Plan(fails=1))
    sim.write(b"b")
    sim.settle()
    sim.advance(11)
    sim.settle()
    assert sim.journal.offsets("ended") == [1, 3]
    sim.drain()
    assert sim.journal.offsets("ended") == [1, 3, 0, 2]


def test_a_key_that_was_freed_and_fails_again_is_locked_again(new_sim: NewSim) -> None:
    sim = new_sim()
    sim.start()
    sim.settle()
    for _ in range(3):
        sim.write(b"k", Plan(fails=1))
        sim.write(b"k")
        sim.drain()
    assert sim.journal.offsets("ended") == [0, 1, 2, 3, 4, 5]
    assert [sim.journal.attempts(offset) for offset in range(6)] == [[0, 1], [0]] * 3


def test_a_delay_is_kept_to_the_millisecond(new_sim: NewSim) -> None:
    sim = new_sim(backoff=ConstantBackoff(timedelta(milliseconds=1_251)))
    sim.start()
    sim.settle()
    sim.write(b"k", Plan(fails=1))
    failed_ms = sim.clock.now_ms()
    sim.flow()
    entry = sim.cluster.locks(sim.names.redirect)[str(MessageId("g", TOPIC, 0, 0))]
    assert entry["due"] == failed_ms + 1_251
    sim.advance(1.250)
    sim.flow()
    assert sim.journal.attempts(0) == [0]
    sim.advance(0.001)
    sim.flow()
    assert sim.journal.attempts(0) == [0, 1]
    sim.drain()


def test_what_is_buffered_does_not_run_where_its_partition_was_revoked(new_sim: NewSim) -> None:
    sim = new_sim(partitions=2)
    first = sim.start()
    sim.settle()
    for partition in (0, 1):
        sim.write(b"k", Plan(slow=True), partition)
        for _ in range(3):
            sim.write(b"k", partition=partition)
    sim.flow(finishing=False)
    assert len(sim.running) == 2
    second = sim.start()
    sim.flow(finishing=False)  # the rebalance waits for the handlers that run
    assert sim.journal.places("ended") == []
    sim.flow()
    ((gone, _),) = (item for item in sim.cluster.assignment("g").items() if item[1] == second.name)
    by_first = [event for event in sim.journal.events if event.instance == first.name]
    assert {event.offset for event in by_first if event.partition == gone.partition} == {0}
    sim.drain()
    sim.journal.once()
    assert len(sim.journal.places("ended")) == 8


def test_a_records_own_headers_stay_whatever_their_names(new_sim: NewSim) -> None:
    sim = new_sim(max_retries=1)
    sim.start()
    sim.settle()
    sim.write(b"k", Plan(fails=2), headers=OWN_HEADERS)
    sim.drain()
    for topic in (sim.names.retry, sim.names.dlq):
        (record,) = sim.cluster.read(topic)
        assert list(record.headers)[: len(OWN_HEADERS)] == OWN_HEADERS


def test_a_group_that_retries_for_the_first_time_skips_nothing_that_waits() -> None:
    """Also where the application begins at the end of its own topics."""
    cluster, journal = SimulatedCluster(), Journal()
    cluster.create_topic(TOPIC)
    written = cluster.write(TOPIC, b"k", b"v")
    settings = Settings(group_id="g", auto_offset_reset="latest", backoff=ConstantBackoff(timedelta(milliseconds=10)))
    with ErrorTracker(settings, client=cluster.client("one")) as tracker:
        tracker.start_tracking(TOPIC)
        (record,) = cluster.read(TOPIC)
        tracker.redirect(record, ValueError("no"))
    cluster.commit("g", TOPIC, {0: 1})

    def handle(record: Record) -> None:
        assert get_retry_attempt(record) == 1

    with KafkaConsumer.resilient(settings, TOPIC, journal.recording(handle), client=cluster.client("two")):
        journal.wait_until_ended(written)
