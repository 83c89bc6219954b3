"""Each rule of the protocol is needed: without it, taken out of the code, a promise breaks in the scenario beside it.

With all rules in place every scenario holds.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from kafetrain.client.ports import Committed
from kafetrain.consumer.middleware import error_handling
from kafetrain.core import schedule
from kafetrain.core.lock_table import SourceLocks
from kafetrain.core.rules import SourceStep, source_step
from kafetrain.record import MessageId, RetryHeader, TopicPartition
from kafetrain.retry import orphans
from kafetrain.retry.orphans import OrphanCheck
from kafetrain.retry.partition import RetryPartition
from kafetrain.testing.events import BrokenPromise
from kafetrain.testing.promises import NoZombieLocks, Progress
from kafetrain.testing.simulated import Asked, Refuse, Request
from kafetrain.testing.simulated.consumer import SimulatedConsumer
from kafetrain.tracker import source_path, writes
from kafetrain.tracker.state import Claim
from tests.simulation.instance import SimulatedInstance
from tests.simulation.sim import TOPIC, Plan, Sim

Patch = Callable[[pytest.MonkeyPatch], None]
SOURCE, RETRY = "source", "retry"


@dataclass(frozen=True)
class Rule:
    """`without` takes it out; `breaks`: what is then said of the promise that breaks."""

    without: Patch
    scenario: Callable[[], None]
    breaks: str


def rounds(sim: Sim, *instances: SimulatedInstance, count: int = 8, acknowledging: bool = True) -> None:
    """They go on, without anything else: no handler's future ends."""
    for _ in range(count):
        for instance in instances:
            if instance.name in sim.instances:
                sim.round(instance)
            if acknowledging:
                sim.acknowledge_all(instance.name)


# What a redelivered record proves


def a_later_record_is_known() -> None:
    """m0 has succeeded, m1 waits; a crash before the commit brings both again, m1's retry being due."""
    sim = Sim()
    first = sim.start()
    sim.settle()
    m0 = sim.write(b"k")
    sim.write(b"k", Plan(fails=1))
    rounds(sim, first)
    sim.kill(first)
    sim.expire_killed()
    sim.plans[m0.place] = Plan(slow=True)
    sim.advance(11)
    rounds(sim, sim.start(), count=12)
    sim.drain()


def _without_later_ids(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SourceLocks, "later_id_known", lambda self, chain, offset: False)


def a_lock_is_repeated_while_it_ends() -> None:
    """Both records of a key wait. The source side crashes and reads m0 again while its tombstone is under way."""
    sim = Sim()
    reads, retries = sim.start(without=RETRY), sim.start(without=SOURCE)
    sim.settle()
    sim.write(b"k", Plan(fails=1))
    sim.write(b"k", Plan(slow=True))
    rounds(sim, reads)
    sim.kill(reads)
    sim.expire_killed()
    sim.advance(11)
    rounds(sim, retries, acknowledging=False)
    (tombstone,) = sim.writes(sim.names.redirect)
    again = sim.start(without=RETRY)
    rounds(sim, again, acknowledging=False)
    tombstone.acknowledge()
    rounds(sim, retries)
    rounds(sim, again, retries)
    sim.drain()


def _with_an_entry_each_time(patch: pytest.MonkeyPatch) -> None:
    def step(*args: Any) -> SourceStep:
        found = source_step(*args)
        return SourceStep.SIDELINE if found is SourceStep.REPEAT_RETRY_RECORD else found

    patch.setattr(source_path, "source_step", step)


def a_retried_record_is_read_again_after_compaction() -> None:
    """m1 has ended as a retry, and only its tombstone is left; a crash before the commit brings it again."""
    sim = Sim()
    first = sim.start()
    sim.settle()
    slow = sim.write(b"other", Plan(slow=True))
    sim.write(b"k", Plan(fails=1))
    rounds(sim, first)
    sim.advance(11)
    rounds(sim, first)
    sim.cluster.compact(sim.names.redirect)
    sim.kill(first)
    sim.expire_killed()
    sim.plans[slow.place] = Plan()
    sim.drain()
    sim.journal.once()


def _without_the_key_in_tombstones(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(writes, "tombstone_headers", lambda key: [])


# One key, one step


def an_earlier_record_waits() -> None:
    sim = Sim()
    sim.start()
    sim.write(b"k", Plan(fails=1))
    sim.settle()
    sim.write(b"k")
    sim.drain()


def _running_behind_a_lock(patch: pytest.MonkeyPatch) -> None:
    def step(*args: Any) -> SourceStep:
        found = source_step(*args)
        return SourceStep.RUN if found is SourceStep.SIDELINE else found

    patch.setattr(source_path, "source_step", step)


def an_entry_is_lost_and_a_later_one_of_its_key_is_not() -> None:
    """An application redirects two records of a key without waiting in between; the first write fails."""
    sim = Sim()
    first = sim.start()
    sim.settle()
    sim.write(b"k")
    sim.write(b"k")
    for record in sim.cluster.read(TOPIC):
        first.tracker.redirect_async(record, ValueError("no"))
    (registration,) = sim.writes()[:1]
    registration.acknowledge()
    first.parts.sequencer.step()
    entry = next(write for write in sim.writes(sim.names.redirect) if (write.record.key or b"").endswith(b"/0"))
    entry.fail()
    sim.acknowledge_all()
    first.parts.sequencer.step()
    sim.acknowledge_all()
    sim.kill(first)
    sim.drain()


class _Forgetful(dict[Any, Any]):
    def get(self, key: Any, default: Any = None) -> Any:
        return None


def _with_entries_side_by_side(patch: pytest.MonkeyPatch) -> None:
    made = Claim.__init__

    def init(self: Claim, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        self.writing = _Forgetful()

    patch.setattr(Claim, "__init__", init)


def _any_of_a_key_may_run(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(schedule, "runnable_head", lambda locks, chain: chain.open[-1] if chain.open else None)


# Complete, then commit


def a_crash_before_the_entry_lands() -> None:
    sim = Sim()
    first = sim.start()
    sim.settle()
    sim.write(b"k", Plan(fails=1))
    rounds(sim, first, acknowledging=False)
    sim.advance(1.1)
    rounds(sim, first, acknowledging=False)
    sim.kill(first)
    sim.drain()


def _complete_before_durable(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(error_handling, "hold_back", lambda future, *, key_waits: None)


# The retry path


def a_retry_record_overtakes_its_lock() -> None:
    """The retry side reads the record before its reader has come to the entry."""
    sim = Sim()
    reads, retries = sim.start(without=RETRY), sim.start(without=SOURCE)
    sim.settle()
    lag = sim.cluster.on(Request.FETCH, Refuse(), client=retries.name, topic=sim.names.redirect, times=None)
    sim.write(b"k", Plan(fails=1))
    rounds(sim, reads, retries)
    lag.stop()
    sim.drain()


def _without_waiting_for_locks(patch: pytest.MonkeyPatch) -> None:
    def at_once(self: Any, record: Any, info: Any) -> None:
        heapq.heappush(self._waiting, (-1, record.offset, record, info))

    patch.setattr(RetryPartition, "wait_for_lock", at_once)


def somebody_else_ends_a_lock() -> None:
    """An operator ends the lock of a record that is held for its time."""
    sim = Sim(promises=lambda group: [Progress(TOPIC), NoZombieLocks()])
    first = sim.start()
    sim.settle()
    m0 = sim.write(b"k", Plan(fails=1))
    rounds(sim, first)
    id = str(MessageId("g", TOPIC, *m0.place)).encode()
    sim.cluster.write(sim.names.redirect, id, None, headers=[(RetryHeader.KEY, b"k")])
    sim.drain()


def _keeping_what_has_ended(patch: pytest.MonkeyPatch) -> None:
    def touch(self: Any, partition: int, key: Any, offset: int | None = None) -> None:
        touched(self, partition, key)

    touched = schedule.RetrySchedule.touch
    patch.setattr(schedule.RetrySchedule, "touch", touch)


# Rebalances


def a_new_owner_has_not_read_the_log() -> None:
    """m0 waits and is committed past; its owner leaves; the next one is delivered m1 before it has read anything."""
    sim = Sim()
    first = sim.start()
    sim.settle()
    sim.write(b"k", Plan(fails=1))
    sim.settle()
    sim.stop(first)
    sim.write(b"k")
    second = sim.start()
    lag = sim.cluster.on(Request.FETCH, Refuse(), client=second.name, topic=sim.names.redirect, times=None)
    rounds(sim, second)
    lag.stop()
    sim.drain()


def _with_an_old_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SimulatedConsumer, "end_offsets", lambda self, partitions: dict.fromkeys(partitions, 0))


def a_rebalance_while_an_entry_is_written() -> None:
    """m0 fails again, and its new entry is in flight when another instance joins."""
    sim = Sim()
    first = sim.start()
    sim.settle()
    sim.write(b"k", Plan(fails=2))
    sim.write(b"k")
    sim.settle()
    sim.advance(11)
    rounds(sim, first, acknowledging=False)
    (entry,) = sim.writes(sim.names.redirect)
    second = sim.start()
    for _ in range(20):
        rounds(sim, first, count=1, acknowledging=False)
        rounds(sim, second, count=1)
    entry.land()
    sim.kill(second)
    sim.expire_killed()
    sim.drain()


def _handing_over_in_the_middle(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RetryPartition, "idle", property(lambda self: True))
    patch.setattr(RetryPartition, "writing", property(lambda self: False))


# Orphans


def a_record_is_redirected_while_orphans_are_looked_for() -> None:
    """Another lock has made the retry side look; in the middle of that m0 fails, and is committed past."""
    sim = Sim(partitions=2, retry_topic_partitions=1)
    reads, retries = sim.start(without=RETRY), sim.start(without=SOURCE)
    sim.settle()
    sim.write(b"x", Plan(fails=1), partition=1)
    rounds(sim, reads, count=3, acknowledging=False)
    for _ in range(2):  # the registration and the entry; the retry record stays in flight
        sim.writes(sim.names.redirect)[0].acknowledge()
        rounds(sim, reads, count=1, acknowledging=False)
    rounds(sim, retries)
    sim.advance(3)
    sim.step(retries, "retry")
    sim.cluster.on(Request.FETCH, Refuse(), client=retries.name, topic=sim.names.retry, times=3)

    def meanwhile(asked: Asked) -> None:
        sim.write(b"k", Plan(fails=1))
        rounds(sim, reads, count=4, acknowledging=False)
        for _ in range(4):
            for write in sim.writes():
                if write.record.key != b"x":
                    write.acknowledge()
            rounds(sim, reads, count=1, acknowledging=False)
        sim.advance(1.1)
        rounds(sim, reads, count=2, acknowledging=False)

    sim.cluster.on(Request.COMMITTED, meanwhile, client=retries.name)
    sim.step(retries, "lookups")
    sim.step(retries, "reader")
    for _ in range(3):
        sim.step(retries, "retry")
    sim.drain()


def _end_before_committed(patch: pytest.MonkeyPatch) -> None:
    def look_up(self: Any) -> Any:
        part = self._partition
        end = self._admin.end_offsets([part.place])[part.place]
        places = [TopicPartition(TOPIC, number) for number in orphans._sources(part)]
        committed: dict[Any, Committed] = self._admin.committed(self._group, places)
        return orphans._Note({p.partition: at.next_offset for p, at in committed.items()}, end)

    patch.setattr(OrphanCheck, "_look_up", look_up)


RULES = {
    "a later id is known: it has ended": Rule(
        _without_later_ids, a_later_record_is_known, "started while 0@0 of its key runs"
    ),
    "a pending id gets no second entry": Rule(
        _with_an_entry_each_time, a_lock_is_repeated_while_it_ends, "0@0 .* nothing was interrupted"
    ),
    "a tombstone names its key": Rule(
        _without_the_key_in_tombstones, a_retried_record_is_read_again_after_compaction, "ran again after it had ended"
    ),
    "behind a pending one nothing runs": Rule(
        _running_behind_a_lock, an_earlier_record_waits, "before offset 0 of its key had ended"
    ),
    "one key, one step": Rule(
        _with_entries_side_by_side,
        an_entry_is_lost_and_a_later_one_of_its_key_is_not,
        "before offset 0 of its key had ended",
    ),
    "only the head of a chain runs": Rule(
        _any_of_a_key_may_run, an_earlier_record_waits, "before offset 0 of its key had ended"
    ),
    "complete only what is durable": Rule(_complete_before_durable, a_crash_before_the_entry_lands, "did not run: 0@0"),
    "a retry record waits for its lock": Rule(
        _without_waiting_for_locks, a_retry_record_overtakes_its_lock, "did not run: 0@0"
    ),
    "a held id that ends is complete": Rule(
        _keeping_what_has_ended, somebody_else_ends_a_lock, "the committed offsets are behind"
    ),
    "the end is read after the assignment": Rule(
        _with_an_old_end, a_new_owner_has_not_read_the_log, "before offset 0 of its key had ended"
    ),
    "a partition goes when no write is in flight": Rule(
        _handing_over_in_the_middle, a_rebalance_while_an_entry_is_written, "0@0 .attempt 2. has failed 1 times"
    ),
    "committed offset, then end, then orphans": Rule(
        _end_before_committed, a_record_is_redirected_while_orphans_are_looked_for, "did not run: 0@0"
    ),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_with_all_rules_the_scenario_holds(rule: Rule) -> None:
    rule.scenario()


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_without_the_rule_a_promise_breaks(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    rule.without(monkeypatch)
    with pytest.raises(BrokenPromise, match=rule.breaks):
        rule.scenario()
