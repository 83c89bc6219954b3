"""Hypothesis drives instances of an application through whatever may happen to them, and the promises must hold.

A failing run is shrunk, and printed as the calls that lead to it, with what the handlers did in between.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.simulation.instance import COMPONENTS, SimulatedInstance
from tests.simulation.sim import Plan, Sim

KEYS = (b"a", b"b", None)
MOST_INSTANCES = 3
MOST_RECORDS = 14
SESSION_S = 50.0
which = st.integers(min_value=0, max_value=7)
plans = st.builds(
    Plan, fails=st.sampled_from([0, 0, 0, 1, 1, 2, 3]), slow=st.booleans(), pauses=st.sampled_from([0, 0, 0, 1])
)


class Machine(RuleBasedStateMachine):
    """One group, at-least-once, no zombies: everything must hold."""

    partitions = 2
    groups: tuple[str, ...] = ("g",)
    changes: dict[str, Any] = {}  # noqa: RUF012 - never changed

    @initialize(concurrency=st.sampled_from([1, 4]), free_on_dlq=st.booleans(), held=st.sampled_from([3, 10_000]))
    def begin(self, concurrency: int, free_on_dlq: bool, held: int) -> None:
        self.sim = Sim(
            partitions=self.partitions,
            groups=self.groups,
            say=note,
            **{"concurrency": concurrency, "free_on_dlq": free_on_dlq, "max_held_records": held, **self.changes},
        )
        for group in self.groups:
            self.sim.start(group)
        self.sim.settle()

    def teardown(self) -> None:
        if hasattr(self, "sim"):
            self.sim.drain()

    # The world outside

    @precondition(lambda self: len(self.sim.written) < MOST_RECORDS)
    @rule(key=st.sampled_from(KEYS), plan=plans, partition=st.integers(0, 1))
    def write(self, key: bytes | None, plan: Plan, partition: int) -> None:
        self.sim.write(key, plan, partition % self.partitions)

    @rule(seconds=st.sampled_from([0.5, 1.1, 5.0, 11.0, 61.0]))
    def wait(self, seconds: float) -> None:
        self.sim.advance(seconds)

    @precondition(lambda self: self.sim.running)
    @rule(at=which)
    def a_handler_ends(self, at: int) -> None:
        self.sim.finish(self.sim.running[at % len(self.sim.running)])

    # Steps

    @precondition(lambda self: self.sim.instances)
    @rule(at=which, component=st.sampled_from(COMPONENTS))
    def step(self, at: int, component: str) -> None:
        self.sim.step(self._instance(at), component)

    @precondition(lambda self: self.sim.instances)
    @rule(at=which, count=st.integers(1, 3))
    def go_round(self, at: int, count: int) -> None:
        name = self._instance(at).name
        for _ in range(count):
            if name in self.sim.instances:
                self.sim.round(self.sim.instances[name])

    @rule()
    def flow(self) -> None:
        self.sim.flow(3)

    @precondition(lambda self: not self.sim.is_stopped)
    @rule()
    def come_to_a_stand(self) -> None:
        self.sim.check_quiet()

    # Writes

    @precondition(lambda self: self.sim.writes())
    @rule(at=which)
    def land(self, at: int) -> None:
        writes = self.sim.writes()
        writes[at % len(writes)].land()

    @precondition(lambda self: self.sim.writes())
    @rule(at=which)
    def acknowledge(self, at: int) -> None:
        writes = self.sim.writes()
        writes[at % len(writes)].acknowledge()

    @rule()
    def acknowledge_all(self) -> None:
        self.sim.acknowledge_all()

    @precondition(lambda self: self.sim.writes())
    @rule(at=which, landed=st.booleans())
    def a_write_is_given_up(self, at: int, landed: bool) -> None:
        """Its acknowledgement is lost, or it never arrived: the client cannot tell."""
        write = self.sim.writes()[at % len(self.sim.writes())]
        if landed:
            write.land()
        write.fail()

    # Instances

    @precondition(lambda self: len(self.sim.instances) < MOST_INSTANCES and not self.sim.is_stopped)
    @rule(at=which)
    def start(self, at: int) -> None:
        self.sim.start(self.groups[at % len(self.groups)])

    @precondition(lambda self: self.sim.instances)
    @rule(at=which, acknowledging=st.booleans(), landing=st.integers(0, 3))
    def stop(self, at: int, acknowledging: bool, landing: int) -> None:
        self.sim.stop(self._instance(at), acknowledging=acknowledging, landing=landing)

    @precondition(lambda self: self.sim.instances)
    @rule(at=which, landing=st.integers(0, 3), expires=st.booleans())
    def kill(self, at: int, landing: int, expires: bool) -> None:
        self.sim.kill(self._instance(at), landing=landing)
        if expires:
            self.sim.expire_killed()

    @precondition(lambda self: self.sim.killed)
    @rule()
    def sessions_of_the_killed_end(self) -> None:
        self.sim.expire_killed()

    # Brokers and logs

    @precondition(lambda self: self.sim.instances)
    @rule(at=which, at_most=st.sampled_from([1, 2, None]))
    def read_slowly(self, at: int, at_most: int | None) -> None:
        self._instance(at).client.instance.fetch_at_most = at_most

    @precondition(lambda self: not self.sim.is_stopped)
    @rule()
    def brokers_stop(self) -> None:
        self.sim.stop_brokers()

    @precondition(lambda self: self.sim.is_stopped)
    @rule()
    def brokers_start(self) -> None:
        self.sim.start_brokers()

    @rule()
    def compact(self) -> None:
        self.sim.compact()

    @rule()
    def tombstones_vanish(self) -> None:
        self.sim.remove_tombstones()

    def _instance(self, at: int) -> SimulatedInstance:
        names = sorted(self.sim.instances)
        return self.sim.instances[names[at % len(names)]]


class GrowingMachine(Machine):
    """The source topic grows while keys retry."""

    partitions = 1

    @precondition(lambda self: self.sim.partitions < 3)
    @rule()
    def grow(self) -> None:
        self.sim.grow()
        self.partitions = self.sim.partitions


class TwoGroupsMachine(Machine):
    """Two groups share the source topic and all auxiliary topics."""

    partitions = 1
    groups = ("g", "h")


class SharedPartitionMachine(Machine):
    """Two source partitions share one redirect and one retry partition."""

    changes = {"retry_topic_partitions": 1}  # noqa: RUF012 - never changed


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("machine", [Machine, GrowingMachine, TwoGroupsMachine, SharedPartitionMachine])
def test_promises_hold_whatever_happens(machine: type[Machine]) -> None:
    profile = settings.default
    if profile is None or settings.get_current_profile_name() != "long":
        profile = settings.get_profile("simulation")
    run_state_machine_as_test(machine, settings=profile)
