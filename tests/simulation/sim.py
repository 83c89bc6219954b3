"""A cluster, instances of one application, plans for its records, and the promises: all in one thread, step by step.

Time stands still unless it is told to go on, and writes wait in flight until they are let land or are acknowledged.
One long file: each method is something that happens to the same few instances, and is looked at in the same way.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from kafetrain import ConstantBackoff, Pause, Settings
from kafetrain.core.control import Action
from kafetrain.errors import RestoreTimeoutError, WriteFailedError
from kafetrain.record import Headers, Record, RetryHeader, get_retry_attempt, header
from kafetrain.testing.events import Place, Standing, Written, chain_of
from kafetrain.testing.journal import Journal
from kafetrain.testing.promises import Promise
from kafetrain.testing.simulated import Hold, Refuse, Request, Script, SimulatedClock, SimulatedCluster, Write
from kafetrain.topics import AuxiliaryTopics
from tests.simulation.expectations import Expectations
from tests.simulation.further_promises import Zombies
from tests.simulation.instance import SimulatedInstance
from tests.simulation.operators import Operator
from tests.simulation.stepped import pause

__all__ = ["TOPIC", "Plan", "Sim"]

TOPIC = "orders"
BACKOFF = timedelta(seconds=10)
PAUSE_S = 5.0
PATIENCE = timedelta(hours=20)
FOREVER_S = 1e9
TRANSACTION_S = 10.0
ROUNDS = 400
MAY_END = (RestoreTimeoutError, WriteFailedError)
"""What ends an instance: brokers that do not answer, or not in time."""


@dataclass(frozen=True)
class Plan:
    """What the handler does with a record: fails so often, then succeeds. `slow`: it returns a future."""

    fails: int = 0
    slow: bool = False
    pauses: int = 0


@dataclass
class Running:
    """A handler whose future has not ended."""

    instance: str
    record: Record
    future: Future[None]
    fails: bool


class Sim:
    """One consumer group's view unless `groups` names several; instances are named `{group}.{number}`."""

    def __init__(
        self,
        *,
        partitions: int = 1,
        groups: tuple[str, ...] = ("g",),
        hold_writes: bool = True,
        promises: Callable[[str], list[Promise]] | None = None,
        say: Callable[[str], object] = lambda line: None,
        **settings: Any,
    ) -> None:
        self.clock, self.say, self._changes = SimulatedClock(), say, settings
        self.may_end: tuple[type[BaseException], ...] = MAY_END
        self.cluster = SimulatedCluster(
            self.clock,
            threads=False,
            rebalance_timeout_s=FOREVER_S,
            transaction_timeout_s=TRANSACTION_S,
            meanwhile=pause,
        )
        self.cluster.create_topic(TOPIC, partitions)
        self.partitions = partitions
        self.groups = groups
        self._settings: dict[str, Settings] = {}
        self.names = AuxiliaryTopics.of(self.settings(groups[0]), TOPIC)
        self.zombies = Zombies()
        self._keys: dict[Place, bytes | None] = {}
        self.expectations = {
            group: Expectations(self.cluster, self.settings(group), TOPIC, self.zombies, self._keys) for group in groups
        }
        promised = promises or (lambda group: self.expectations[group].promises())
        self.journals = {group: Journal(promises=promised(group)) for group in groups}
        self.written: list[Written] = []
        self.plans: dict[Place, Plan] = {}
        self.instances: dict[str, SimulatedInstance] = {}
        self.is_stopped = False
        self.lags: list[Script] = []
        self.killed: set[str] = set()
        """Whose sessions have not ended."""
        self.running: list[Running] = []
        self._failures: Counter[tuple[str, Place]] = Counter()
        self._pauses: Counter[tuple[str, Place]] = Counter()
        self._paused_until = 0.0
        self._numbers: defaultdict[str, int] = defaultdict(int)
        self._assignments: dict[str, object] = {}
        for group in groups:  # before the next: an operator's writes are not held
            self.cluster.on(Request.PRODUCE, lambda asked: None, client=_operator_of(group), times=None)
        if hold_writes:
            self.cluster.on(Request.PRODUCE, Hold(), times=None)

    @property
    def journal(self) -> Journal:
        """Of the first group."""
        return self.journals[self.groups[0]]

    def settings(self, group: str) -> Settings:
        if group not in self._settings:
            defaults: dict[str, Any] = {
                "backoff": ConstantBackoff(BACKOFF),
                "max_retries": 2,
                "shutdown_timeout": PATIENCE,  # nobody gives up on a handler that still runs, and runs its record again
            }
            self._settings[group] = Settings(group_id=group, **{**defaults, **self._changes})
        return self._settings[group]

    # What happens

    def write(self, key: bytes | None, plan: Plan = Plan(), partition: int = 0, headers: Headers = ()) -> Written:
        (record,) = self.cluster.write(TOPIC, key, b"v", partition=partition, headers=headers)
        self.written.append(record)
        self._keys[record.place] = key
        self.plans[record.place] = plan
        for journal in self.journals.values():
            journal.wrote([record])
        return record

    def start(self, group: str | None = None, *, without: str = "") -> SimulatedInstance:
        """`without`: `source` or `retry`, to have only the other side."""
        group = group or self.groups[0]
        self._numbers[group] += 1
        name = f"{group}.{self._numbers[group]}"

        def handle(record: Record) -> Future[None] | None:
            return self._handle(name, group, record)

        handler = self.journals[group].recording(handle, name, group)
        client, settings = self.cluster.client(name), self.settings(group)
        instance = SimulatedInstance(name, settings, TOPIC, handler, client, self.clock)
        instance.left_out = frozenset({without})
        self.instances[name] = instance
        return instance

    def change(self, **settings: Any) -> None:
        """For instances that are started from now on."""
        self._changes.update(settings)
        self._settings.clear()

    def step(self, instance: SimulatedInstance, component: str) -> None:
        instance.step(component)
        self._look(instance)

    def round(self, instance: SimulatedInstance) -> None:
        instance.round()
        self._look(instance)

    def stop(self, instance: SimulatedInstance, *, acknowledging: bool = True, landing: int = 0) -> None:
        """In good order. Else than acknowledging: no write is acknowledged, and `landing` of them land."""
        if acknowledging:
            instance.stop(lambda: self.acknowledge_all(instance.name))
        else:
            instance.stop(lambda: None)
        self._land(instance.name, landing)
        self._gone(instance)
        self._interrupted()

    def kill(self, instance: SimulatedInstance, *, landing: int = 0) -> None:
        """Of its writes in flight, the first `landing` land. Its sessions go on until `expire_killed`."""
        self._land(instance.name, landing)
        self._gone(instance)
        self.killed.add(instance.name)

    def expire_killed(self) -> None:
        for name in sorted(self.killed):
            self.cluster.expire(name)
        self.killed.clear()
        self._interrupted()

    def expire(self, instance: SimulatedInstance) -> None:
        """Its sessions end, and it does not know: a zombie, until its next polls."""
        self.zombies.add(instance)
        self.cluster.expire(instance.name)
        for journal in self.journals.values():
            journal.interrupted(instance.name)
        self._interrupted()
        self.check()

    def operate(
        self, group: str, action: Action, key: bytes | None, meanwhile: Callable[[], object] = lambda: None
    ) -> None:
        """An operator's command, for one key or for all. `meanwhile`: what happens between its look and its writes."""
        name, settings = _operator_of(group), self.settings(group)
        operator = Operator(name, settings, TOPIC, self.cluster, self.clock, self._let_transactions_end)
        if (plan := operator.plan(action, key)) is not None:
            meanwhile()
            self.say(f"    {group}: an operator asks {len(plan.targets)} times for {action.value}")
            for target in plan.targets if action is Action.REPLAY else ():
                chain = chain_of(target.id.partition, target.id.offset, target.key)
                self.expectations[group].replay(chain, appended=target.action is Action.APPEND)
            operator.carry_out(plan)
        operator.close()

    def finish(self, running: Running) -> None:
        """The handler's future ends as its plan says. One of an instance that is gone ends unheard."""
        self.running.remove(running)
        if running.future.cancelled() or not running.future.set_running_or_notify_cancel():
            return
        if running.fails:
            running.future.set_exception(ValueError("planned, later"))
        else:
            running.future.set_result(None)

    def acknowledge_all(self, instance: str | None = None) -> None:
        for write in self.cluster.in_flight(instance):
            write.acknowledge()

    def finish_transactions(self) -> None:
        """Those that are decided."""
        for transaction in self.cluster.transactions():
            if transaction.decided is not None:
                transaction.finish()

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.cluster.settle()

    def stop_brokers(self) -> None:
        self.is_stopped = True
        self.cluster.stop()

    def start_brokers(self) -> None:
        self.is_stopped = False
        self.cluster.start()

    def lag(self, instance: SimulatedInstance, topic: str) -> None:
        """It sees nothing new in the topic until `catch_up`."""
        self.lags.append(self.cluster.on(Request.FETCH, Refuse(), client=instance.name, topic=topic, times=None))

    def catch_up(self) -> None:
        while self.lags:
            self.lags.pop().stop()

    def set_wall_clock(self, instance: SimulatedInstance, off: timedelta) -> None:
        """`off` from the others', either way, and two minutes at most."""
        instance.set_wall_clock(off)
        if self._paused_until > self.clock.monotonic():
            self._paused_until += 240

    def repeat_retry_record(self, at: int) -> None:
        """One that is there comes once more, as where a writer did not learn that it had come."""
        if self.names.retry not in self.cluster.topics():
            return
        records = [record for record in self.cluster.read(self.names.retry) if header(record, RetryHeader.ID)]
        if records:
            record = records[at % len(records)]
            headers, partition = list(record.headers), record.partition
            self.cluster.write(self.names.retry, record.key, record.value, partition=partition, headers=headers)

    def grow(self) -> None:
        """One more partition of the source topic."""
        self.partitions += 1
        self.cluster.grow_topic(TOPIC, self.partitions)

    def compact(self) -> None:
        if self.names.redirect in self.cluster.topics():
            self.cluster.compact(self.names.redirect)

    def remove_tombstones(self) -> None:
        """Those that every reader has seen: `delete.retention.ms` is longer than readers lag."""
        if self.names.redirect in self.cluster.topics():
            read_to = [instance.read_to for instance in self.instances.values()]
            before = min((at for at in read_to if at is not None), default=None)
            self.cluster.remove_tombstones(self.names.redirect, before=before)

    def come_to_write(self, topic: str) -> Write:
        """All go on and are acknowledged, until something is to be written to the topic: that stays in flight."""
        for _ in range(ROUNDS):
            if found := self.writes(topic):
                return found[0]
            for instance in tuple(self.instances.values()):
                self.acknowledge_all(instance.name)
                self.round(instance)
        raise AssertionError(f"nothing is written to {topic}")

    # To the end

    def flow(self, rounds: int = 12, *, finishing: bool = True) -> None:
        """Every instance goes on, every write is acknowledged, time stands still. `finishing`: every handler ends."""
        for _ in range(rounds):
            for instance in tuple(self.instances.values()):
                self.round(instance)
                self.acknowledge_all()
                for running in tuple(self.running) if finishing else ():
                    self.finish(running)
                self.check()

    def settle(self) -> None:
        """As `flow`, with both sides of each group and nobody's sessions in the way, until commits are done."""
        for group in self.groups:
            ours = [instance for instance in self.instances.values() if instance.settings.group_id == group]
            if not all(any(side not in instance.left_out for instance in ours) for side in ("source", "retry")):
                self.start(group)
        self.expire_killed()
        self.catch_up()
        self.finish_transactions()
        self.flow()
        if self.cluster.transactions():  # of one that was killed: until it is aborted
            self.advance(TRANSACTION_S)
            self.flow()
        self.advance(max(1.1, self._paused_until - self.clock.monotonic()))
        self.flow(6)

    def check_quiet(self) -> None:
        """What must hold when nothing happens any more before time passes."""
        before = None
        while before != (before := self._fingerprint()):
            self.settle()
        for group, journal in self.journals.items():
            journal.at_quiet(self.standing(group))

    def drain(self) -> None:
        """Until nothing waits any more, and the promises at rest hold."""
        self.start_brokers()
        for instance in self.instances.values():
            instance.client.instance.fetch_at_most = None
        self.check_quiet()
        for _ in range(ROUNDS):
            if all(self._is_at_rest(group) for group in self.groups):
                break
            self.advance(5)
            self.settle()
        for group, journal in self.journals.items():
            journal.at_rest(self.standing(group))

    def close(self) -> None:
        """No thread is left."""
        for instance in self.instances.values():
            instance.end()

    def check(self) -> None:
        for expected in self.expectations.values():
            expected.look()
        for journal in self.journals.values():
            journal.check()

    # Where things stand

    def standing(self, group: str) -> Standing:
        return self.cluster.standing(self.settings(group), TOPIC, self.written, lambda name: name.split(".")[0])

    def writes(self, topic: str | None = None) -> list[Write]:
        """In flight, to one topic or to all."""
        return [write for write in self.cluster.in_flight() if topic in (None, write.place.topic)]

    # Inside

    def _handle(self, name: str, group: str, record: Record) -> Future[None] | None:
        place = (record.partition, record.offset)
        plan = self.plans[place]
        self.say(f"    {name} runs {record.key!r} {place[0]}@{place[1]}, attempt {get_retry_attempt(record)}")
        if self._pauses[group, place] < plan.pauses:
            self._pauses[group, place] += 1
            self._paused_until = self.clock.monotonic() + PAUSE_S
            raise Pause(timedelta(seconds=PAUSE_S))
        fails = self._failures[group, place] < plan.fails
        self._failures[group, place] += fails
        if plan.slow:
            future: Future[None] = Future()
            self.running.append(Running(name, record, future, fails))
            return future
        if fails:
            raise ValueError("planned")
        return None

    def _let_transactions_end(self) -> None:
        """While somebody waits for them to be over."""
        if self.cluster.transactions():
            self.finish_transactions()
            self.advance(0.5)

    def _look(self, instance: SimulatedInstance) -> None:
        """After a step: has it ended, have partitions moved, did a promise break?"""
        self.zombies.look(instance)
        if instance.error is not None:
            self.say(f"    {instance.name} ends: {type(instance.error).__name__}: {instance.error}")
            assert isinstance(instance.error, self.may_end), f"{instance.name} ended: {instance.error!r}"
            instance.stop(lambda: self.acknowledge_all(instance.name))
            self._gone(instance)
        self._interrupted()
        self.check()

    def _gone(self, instance: SimulatedInstance) -> None:
        if self.is_stopped:  # it could not leave its groups
            self.killed.add(instance.name)
        self.cluster.kill(instance.name)
        instance.end()
        self.zombies.forget(instance.name)
        self.instances.pop(instance.name, None)
        self.running = [running for running in self.running if running.instance != instance.name]
        for journal in self.journals.values():
            journal.interrupted(instance.name)

    def _interrupted(self) -> None:
        """Tell the journals where partitions have changed hands."""
        for group, journal in self.journals.items():
            both = (group, self.settings(group).retry_group_id)
            now = [self.cluster.assignment(consumer_group) for consumer_group in both]
            if self._assignments.get(group) != now:
                self._assignments[group] = now
                journal.interrupted()

    def _land(self, name: str, count: int) -> None:
        for write in self.cluster.in_flight(name)[:count]:
            write.land()

    def _is_at_rest(self, group: str) -> bool:
        standing = self.standing(group)
        return not standing.uncommitted and all(state == "dead" for state in standing.locks.values())

    def _fingerprint(self) -> object:
        ends = [self.cluster.end_offsets(topic) for topic in self.cluster.topics()]
        return sorted(self.instances), ends, sum(len(journal.events) for journal in self.journals.values())


def _operator_of(group: str) -> str:
    """By the names of its instances: what it writes is its group's."""
    return f"{group}.operator"
