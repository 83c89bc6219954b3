"""What is known to go wrong with locks in systems like this one, and does not here: each failure has its scenario.

Which test holds which failure is in docs/pages/guarantees.md. All promises are checked in each scenario, beside what it
says itself.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kafetrain.record import DlqHeader, MessageId, Record, RetryHeader, header
from tests.simulation.sim import TOPIC, Plan, Sim

NewSim = Callable[..., Sim]
LATER_S = 11


def later(sim: Sim) -> None:
    """What waits is due, and runs."""
    sim.advance(LATER_S)
    sim.settle()


def locks(sim: Sim) -> set[str]:
    return set(sim.cluster.locks(sim.names.redirect))


def id_of(offset: int, partition: int = 0) -> str:
    return str(MessageId("g", TOPIC, partition, offset))


def has_retried(sim: Sim, offset: int) -> bool:
    return any(event.retried_by for event in sim.journal.events if event.place == (0, offset))


def test_a_redirect_that_fails_halfway_frees_nobody_elses_lock(new_sim: NewSim) -> None:
    sim = new_sim()
    sim.start()
    sim.settle()
    sim.write(b"k", Plan(fails=1))
    sim.write(b"other", Plan(fails=1))
    sim.settle()
    assert locks(sim) == {id_of(0), id_of(1)}
    sim.write(b"k")
    sim.come_to_write(sim.names.retry).fail()
    sim.flow()
    assert {id_of(0), id_of(1)} <= locks(sim)
    sim.drain()
    assert sim.journal.offsets("ended", b"k") == [0, 2]


def test_a_lock_that_another_instance_freed_is_free_here_too(new_sim: NewSim) -> None:
    sim = new_sim()
    reads, retries = sim.start(without="retry"), sim.start(without="source")
    sim.settle()
    sim.write(b"k", Plan(fails=1))
    sim.settle()
    later(sim)
    sim.write(b"k")
    sim.flow()
    assert [(event.offset, event.instance) for event in sim.journal.events if event.kind == "ended"] == [
        (0, retries.name),
        (1, reads.name),
    ]
    sim.drain()


def test_each_of_two_readers_that_share_a_partition_of_locks_knows_all_of_it(new_sim: NewSim) -> None:
    sim = new_sim(partitions=2, retry_topic_partitions=1)
    sim.start()
    sim.start()
    sim.settle()
    for _ in range(2):
        sim.write(b"k", Plan(fails=1), partition=0)
        sim.write(b"k", Plan(fails=1), partition=1)
        sim.settle()
    assert len({event.instance for event in sim.journal.events if event.kind == "failed"}) == 2
    assert sorted(sim.journal.places("started")) == [(0, 0), (1, 0)]  # both keys are locked, whoever reads them
    sim.drain()


def test_entries_of_one_record_are_one_lock_after_a_restart(new_sim: NewSim) -> None:
    sim = new_sim()
    first = sim.start()
    sim.settle()
    sim.write(b"k", Plan(fails=2))
    sim.settle()
    later(sim)
    assert [record.key for record in sim.cluster.read(sim.names.redirect)].count(id_of(0).encode()) == 2
    sim.kill(first)
    sim.start()
    sim.settle()
    later(sim)
    assert locks(sim) == set()
    sim.write(b"k")
    sim.flow()
    assert sim.journal.offsets("ended") == [0, 1]
    assert not has_retried(sim, 1)
    sim.drain()


def _compact(sim: Sim) -> None:
    sim.cluster.compact(sim.names.redirect)
    sim.cluster.remove_tombstones(sim.names.redirect)


def _end_with_a_marker(sim: Sim) -> None:
    transaction = sim.cluster.begin_transaction()
    transaction.write(sim.names.redirect, b"nothing", b"of ours")
    transaction.abort()


def _delete_all(sim: Sim) -> None:
    sim.cluster.delete_records(sim.names.redirect, sim.cluster.end_offsets(sim.names.redirect)[0])


@pytest.mark.parametrize("remove", [_compact, _end_with_a_marker, _delete_all])
def test_restoring_waits_for_no_record_that_is_gone(new_sim: NewSim, remove: Callable[[Sim], None]) -> None:
    """The last offset before the end holds nothing that a reader is ever given."""
    sim = new_sim()
    first = sim.start()
    sim.settle()
    sim.write(b"k", Plan(fails=1))
    sim.settle()
    later(sim)
    sim.kill(first)
    sim.expire_killed()
    remove(sim)
    end = sim.cluster.end_offsets(sim.names.redirect)
    sim.start()
    sim.write(b"k")
    sim.flow()
    assert sim.journal.offsets("ended") == [0, 1]
    assert sim.cluster.end_offsets(sim.names.redirect) == end
    sim.drain()


def test_partitions_that_others_own_hold_up_no_restore(new_sim: NewSim) -> None:
    sim = new_sim(partitions=2)
    sim.start()
    sim.settle()
    for partition in (0, 1):
        sim.write(b"k", Plan(fails=1), partition)
    sim.settle()
    sim.start()
    sim.settle()
    assert len(set(sim.cluster.assignment("g").values())) == 2
    for partition in (0, 1):
        sim.write(b"other", partition=partition)
    sim.flow()
    ended = [event for event in sim.journal.events if event.kind == "ended"]
    assert {event.partition for event in ended} == {0, 1}
    assert len({event.instance for event in ended}) == 2
    sim.drain()


def test_a_tombstone_without_headers_stops_no_reader(new_sim: NewSim) -> None:
    sim = new_sim()
    first = sim.start()
    sim.settle()
    sim.write(b"k", Plan(fails=1))
    sim.settle()
    for key in (id_of(999), "no id", id_of(999, partition=7)):
        sim.cluster.write(sim.names.redirect, key.encode(), None)
    sim.cluster.write(sim.names.redirect, None, None)
    sim.drain()
    assert list(sim.instances.values()) == [first]
    assert sum(first.tracker.malformed(TOPIC).values()) == 2


def test_a_crash_between_the_lock_and_the_retry_record_loses_neither(new_sim: NewSim) -> None:
    sim = new_sim()
    first = sim.start()
    sim.settle()
    sim.write(b"k", Plan(fails=1))
    sim.write(b"k")
    sim.come_to_write(sim.names.retry)
    sim.kill(first)
    sim.expire_killed()
    sim.drain()
    assert sim.journal.offsets("ended") == [0, 1]
    assert locks(sim) == set()


def test_a_redelivered_record_is_the_one_that_it_was(new_sim: NewSim) -> None:
    sim = new_sim()
    first = sim.start()
    sim.settle()
    sim.write(b"slow", Plan(slow=True))  # nothing can be committed past it
    sim.write(b"k", Plan(fails=1))
    sim.flow(finishing=False)
    assert locks(sim) == {id_of(1)}
    sim.kill(first)
    sim.expire_killed()
    sim.start()
    sim.flow(finishing=False)
    assert sim.cluster.committed("g", TOPIC)[0].next_offset == 0
    assert locks(sim) == {id_of(1)}
    sim.drain()
    assert sim.journal.attempts(1) == [0, 1]


def test_a_retry_partition_is_the_source_partition_whatever_the_key(new_sim: NewSim) -> None:
    sim = new_sim(partitions=3, max_retries=0)
    sim.start()
    sim.settle()
    for partition in range(3):
        for key in (b"k", b"other"):
            sim.write(key, Plan(fails=1), partition)
            sim.write(key, partition=partition)
    sim.settle()
    for topic in (sim.names.redirect, sim.names.retry, sim.names.dlq):
        named = [(record.partition, _source_partition(record)) for record in sim.cluster.read(topic)]
        assert {found for found in named if found[1] is not None} == {(0, 0), (1, 1), (2, 2)}
    sim.drain()


def _source_partition(record: Record) -> int | None:
    """By the id that it carries; None for a registration."""
    texts = [header(record, RetryHeader.ID), header(record, DlqHeader.ID), (record.key or b"").decode()]
    for text in texts:
        try:
            return MessageId.parse(text or "").partition
        except ValueError:
            continue
    return None
