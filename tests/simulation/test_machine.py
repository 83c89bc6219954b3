"""Hypothesis drives instances of an application through whatever may happen to them, and the promises must hold.

A failing run is shrunk, and printed as the calls that lead to it, with what the handlers did in between.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from kafetrain.core.control import Action
from kafetrain.testing.simulated import Fault, Hold, LoseAnswer, Refuse, Request
from tests.simulation.instance import COMPONENTS, SimulatedInstance
from tests.simulation.operators import OPERATIONS
from tests.simulation.sim import Plan, Sim

pytestmark = pytest.mark.usefixtures("without_coverage")

KEYS = (b"a", b"a", b"b", None)
MOST_INSTANCES = 3
MOST_RECORDS = 14
SESSION_S = 50.0
BETWEEN_POLLS = [name for name in COMPONENTS if name not in ("source", "retry")]
FAULTS: list[Fault] = [Refuse(), LoseAnswer(), Hold()]
TRANSACTION_REQUESTS = [Request.BEGIN_TRANSACTIONS, Request.TRANSACTION_OFFSETS, Request.END_TRANSACTION]
which = st.integers(min_value=0, max_value=7)
plans = st.builds(
    Plan, fails=st.sampled_from([0, 0, 0, 1, 1, 2, 3]), slow=st.booleans(), pauses=st.sampled_from([0, 0, 0, 1])
)


class Machine(RuleBasedStateMachine):
    """One group, at least once: everything must hold, but for the order of the keys that zombies touch."""

    partitions = 2
    groups: tuple[str, ...] = ("g",)
    changes: dict[str, Any] = {}  # noqa: RUF012 - never changed

    @initialize(
        concurrency=st.sampled_from([4, 1]),
        free_on_dlq=st.booleans(),
        held=st.sampled_from([10_000, 3]),
        max_retries=st.sampled_from([2, 2, 2, 0]),
        records=st.lists(st.tuples(st.sampled_from(KEYS), plans), max_size=4),
        slow_first=st.booleans(),
        dead_first=st.booleans(),
    )
    def begin(
        self,
        concurrency: int,
        free_on_dlq: bool,
        held: int,
        max_retries: int,
        records: list[tuple[bytes | None, Plan]],
        slow_first: bool,
        dead_first: bool,
    ) -> None:
        """`slow_first`: while the first record runs, nothing of its partition can be committed. `dead_first`: key `a`
        has a dead letter already."""
        self.sim = Sim(
            partitions=self.partitions,
            groups=self.groups,
            say=note,
            concurrency=concurrency,
            free_on_dlq=free_on_dlq,
            max_held_records=held,
            max_retries=max_retries,
            **self.changes,
        )
        for group in self.groups:
            self.sim.start(group)
        self.sim.settle()
        if dead_first:
            self.sim.write(b"a", Plan(fails=max_retries + 1))
            for _ in range(max_retries + 1):
                self.sim.advance(11.0)
                self.sim.settle()
        for key, plan in [(b"slow", Plan(slow=True))] * slow_first + records:
            self.sim.write(key, plan)

    def teardown(self) -> None:
        if hasattr(self, "sim"):
            try:
                self.sim.drain()
            finally:
                self.sim.close()

    # The world outside

    @precondition(lambda self: len(self.sim.written) < MOST_RECORDS)
    @rule(key=st.sampled_from(KEYS), together=st.lists(plans, min_size=1, max_size=3), partition=st.integers(0, 1))
    def write(self, key: bytes | None, together: list[Plan], partition: int) -> None:
        for plan in together:
            self.sim.write(key, plan, partition % self.partitions)

    @rule(seconds=st.sampled_from([11.0, 1.1, 3.0, 61.0]), rounds=st.integers(0, 6))
    def wait(self, seconds: float, rounds: int) -> None:
        """And let all do what is due; slow handlers run on."""
        self.sim.advance(seconds)
        self.sim.flow(rounds, finishing=False)

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
    @rule(at=which, rounds=st.integers(1, 6), acknowledging=st.booleans(), seconds=st.sampled_from([0, 0, 0, 0.3, 1.1]))
    def work(self, at: int, rounds: int, acknowledging: bool, seconds: float) -> None:
        """One instance alone goes on."""
        name = self._instance(at).name
        for _ in range(rounds):
            if name in self.sim.instances:
                self.sim.round(self.sim.instances[name])
                self.sim.advance(seconds)
                if acknowledging:
                    self.sim.acknowledge_all(name)

    @rule(rounds=st.integers(1, 6), finishing=st.booleans())
    def flow(self, rounds: int, finishing: bool) -> None:
        self.sim.flow(rounds, finishing=finishing)

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

    @precondition(lambda self: len(self.sim.instances) < MOST_INSTANCES)
    @rule(at=which, without=st.sampled_from(["", "", "source", "retry"]), rounds=st.integers(0, 6))
    def start(self, at: int, without: str, rounds: int) -> None:
        """All of it, or only one side; and let it come to work."""
        instance = self.sim.start(self.groups[at % len(self.groups)], without=without)
        for _ in range(rounds):
            if instance.name in self.sim.instances:
                self.sim.round(instance)

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

    @precondition(lambda self: self.sim.instances)
    @rule(at=which, landing=st.sampled_from([0, 0, 1, 2]), rounds=st.integers(0, 6))
    def kill_and_replace(self, at: int, landing: int, rounds: int) -> None:
        """As a supervisor does; the new one is let work, its writes staying in flight."""
        killed = self._instance(at)
        self.sim.kill(killed, landing=landing)
        self.sim.expire_killed()
        (without,) = killed.left_out
        instance = self.sim.start(killed.settings.group_id, without=without)
        for _ in range(rounds):
            if instance.name in self.sim.instances:
                self.sim.round(instance)

    @precondition(lambda self: self.sim.instances)
    @rule(at=which, rounds=st.integers(0, 4), then=st.lists(st.sampled_from(BETWEEN_POLLS), max_size=4))
    def sleep_past_the_session(self, at: int, rounds: int, then: list[str]) -> None:
        """As in a suspended machine: its groups give it up, the others go on, and it wakes without knowing."""
        zombie = self._instance(at)
        self.sim.expire(zombie)
        for other in [other for other in self.sim.instances.values() if other is not zombie]:
            for _ in range(rounds):
                if other.name in self.sim.instances:
                    self.sim.round(other)
                    self.sim.acknowledge_all(other.name)
        for component in then:
            if zombie.name in self.sim.instances:
                self.sim.step(zombie, component)

    @precondition(lambda self: self.sim.killed)
    @rule()
    def sessions_of_the_killed_end(self) -> None:
        self.sim.expire_killed()

    # Operators

    @rule(
        at=which,
        action=st.sampled_from(OPERATIONS),
        key=st.sampled_from([None, *KEYS]),
        rounds=st.integers(0, 3),
        killed=st.booleans(),
    )
    def operate(self, at: int, action: Action, key: bytes | None, rounds: int, killed: bool) -> None:
        """What it asks for is planned, then the others go on, or one is killed, and then it is asked for."""

        def meanwhile() -> None:
            self.sim.flow(rounds, finishing=False)
            if killed and self.sim.instances:
                self.sim.kill(self._instance(at), landing=1)

        self.sim.operate(self.groups[at % len(self.groups)], action, key, meanwhile)

    # Transactions

    @precondition(lambda self: "delivery" in self.changes)
    @rule(fault=st.sampled_from(FAULTS), request=st.sampled_from(TRANSACTION_REQUESTS))
    def a_transaction_goes_wrong(self, fault: Fault, request: Request) -> None:
        """The next request of one is refused, or done and not answered; or its markers come late."""
        self.sim.cluster.on(request, fault)

    @precondition(lambda self: any(t.decided is not None for t in self.sim.cluster.transactions()))
    @rule(at=which)
    def a_marker_is_written(self, at: int) -> None:
        decided = [t for t in self.sim.cluster.transactions() if t.decided is not None]
        decided[at % len(decided)].write_marker()

    # Brokers and logs

    @precondition(lambda self: self.sim.instances)
    @rule(at=which, at_most=st.sampled_from([1, 2, None]))
    def read_slowly(self, at: int, at_most: int | None) -> None:
        self._instance(at).client.instance.fetch_at_most = at_most

    @precondition(lambda self: self.sim.instances)
    @rule(at=which, topic=st.sampled_from(["redirect", "redirect", "retry"]))
    def lag(self, at: int, topic: str) -> None:
        """It sees nothing new in one of the topics, until all catch up."""
        self.sim.lag(self._instance(at), getattr(self.sim.names, topic))

    @precondition(lambda self: self.sim.lags)
    @rule()
    def catch_up(self) -> None:
        self.sim.catch_up()

    @precondition(lambda self: self.sim.instances)
    @rule(at=which, rounds=st.integers(0, 3), seconds=st.sampled_from([1.1, 11.0, 61.0]))
    def brokers_restart(self, at: int, rounds: int, seconds: float) -> None:
        name = self._instance(at).name
        self.sim.stop_brokers()
        for _ in range(rounds):
            if name in self.sim.instances:
                self.sim.round(self.sim.instances[name])
        self.sim.advance(seconds)
        self.sim.start_brokers()

    @precondition(lambda self: self.sim.instances)
    @rule(at=which, off=st.sampled_from([timedelta(minutes=-2), timedelta(0), timedelta(minutes=2)]))
    def a_wall_clock_is_set(self, at: int, off: timedelta) -> None:
        self.sim.set_wall_clock(self._instance(at), off)

    @precondition(lambda self: "delivery" not in self.changes)
    @rule(at=which)
    def a_retry_record_comes_twice(self, at: int) -> None:
        self.sim.repeat_retry_record(at)

    @rule()
    def compact(self) -> None:
        self.sim.compact()

    @rule()
    def tombstones_vanish(self) -> None:
        self.sim.remove_tombstones()

    def _instance(self, at: int) -> SimulatedInstance:
        names = sorted(self.sim.instances)
        return self.sim.instances[names[at % len(names)]]


class TransactionalMachine(Machine):
    """Writes are transactions: zombies change nothing either, and nothing is in a topic twice."""

    changes = {"delivery": "transactional"}  # noqa: RUF012 - never changed


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
@pytest.mark.parametrize(
    "machine", [Machine, TransactionalMachine, GrowingMachine, TwoGroupsMachine, SharedPartitionMachine]
)
def test_promises_hold_whatever_happens(machine: type[Machine]) -> None:
    profile = settings.default
    if profile is None or settings.get_current_profile_name() != "long":
        profile = settings.get_profile("simulation")
    run_state_machine_as_test(machine, settings=profile)
