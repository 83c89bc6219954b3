"""A topic, records with a plan for each, processes that consume it, and what holds when all is over."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from kafetrain.record import MessageId
from kafetrain.testing import Broker
from tests.integration.cluster import Cluster
from tests.integration.faults.history import BrokenPromise, Chain, History, HistoryReader, Place, Span
from tests.integration.faults.worker import HistoryFile, Job, Plan
from tests.integration.twice import committed_records
from tests.waiting import wait_for

__all__ = ["Process", "Scenario"]

ROOT = Path(__file__).parents[3]
SOON_MISSED = {"session_timeout_ms": 6_000, "heartbeat_interval_ms": 300}
"""Client options: a killed process keeps its partitions for 6 s, the least that brokers as they come allow, and a
member learns soon that another one has joined or left."""

LOOK_EVERY_S = 0.2

THREE_IN_TEN_FAIL = (Plan(1), Plan(), Plan(), Plan(2), Plan(), Plan(), Plan(), Plan(1), Plan(), Plan())


class Process:
    """A worker, running. `wait` for its end before the scenario is checked."""

    def __init__(self, job: Job, log: Path) -> None:
        self.job, self.log = job, log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.faults.worker", job.as_text()],
                cwd=ROOT,
                stdout=output,
                stderr=output,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        self.pid = self._process.pid
        self.may_fail = False
        """Whether it may end with an error, which leaves 1 as its exit code."""
        self._gone = False

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self._process.kill()
        self.wait()

    def freeze(self) -> None:
        """It gets no CPU any more, as when its machine is suspended."""
        self._process.send_signal(signal.SIGSTOP)

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def wait(self, timeout: float = 150.0) -> int:
        """Its exit code: 0 after SIGTERM, -9 after a kill."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"process {self.pid} still runs after {timeout:g} s.\n{self.tail()}") from None
        if not self._gone:
            self._gone = True
            history = HistoryFile(self.job.history)
            history.add("gone", pid=self.pid)
            history.close()
        return code

    def stop(self) -> None:
        """In good order: whatever runs ends, and is committed."""
        self.terminate()
        code = self.wait()
        assert code == 0, f"process {self.pid} ended with {code} after SIGTERM.\n{self.tail()}"

    def check_alive(self) -> None:
        code = self._process.poll()
        assert code is None or (code == 1 and self.may_fail), f"process {self.pid} ended with {code}.\n{self.tail()}"

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def clean_up(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class Scenario:
    """`close` it: ends what still runs. One thread, but for `producing`."""

    def __init__(self, broker: Broker, topic: str, folder: Path, *, keys: int = 8, **job: Any) -> None:
        self.broker, self.topic, self.folder = broker, topic, folder
        options = {**broker.client_options, **SOON_MISSED, **job.pop("client_options", {})}
        self.job = Job(
            servers=broker.bootstrap_servers,
            group=f"g-{topic}",
            topic=topic,
            history=str(folder / f"{topic}.jsonl"),
            client_options=options,
            **job,
        )
        self.chains: defaultdict[Chain, list[int]] = defaultdict(list)
        """Offsets of what was produced, by partition and key."""
        self.plans: dict[Place, Plan] = {}
        self._keys, self._count = keys, 0
        self._processes: list[Process] = []
        self._reader = HistoryReader(self.job.history)
        self._zombies: dict[int, Span] = {}
        self._unsettled: set[Chain] = set()
        self._pause = threading.Event()  # never set
        self.cluster = Cluster(broker)
        self.partitions = self.cluster.partition_count(topic)

    # What happens

    def produce(self, plans: Sequence[Plan]) -> None:
        """A record for each plan, the keys in turn. Returns when they are in the topic."""
        keys = [number % self._keys for number in range(self._count, self._count + len(plans))]
        records = [(k % self.partitions, b"k%d" % k, plan.encode()) for k, plan in zip(keys, plans, strict=True)]
        for k, plan, at in zip(keys, plans, self.cluster.write_all(self.topic, records), strict=True):
            self.chains[at.partition, f"k{k}"].append(at.offset)
            self.plans[at.partition, at.offset] = plan
        self._count += len(plans)

    @contextlib.contextmanager
    def producing(self, plans: Sequence[Plan] = THREE_IN_TEN_FAIL, every_s: float = 0.4) -> Iterator[None]:
        """Produce all the while, in a thread; what it met is raised at the end."""
        stopping, errors = threading.Event(), list[BaseException]()

        def go_on() -> None:
            try:
                while not stopping.wait(every_s):
                    self.produce(plans)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()
        for error in errors:
            raise error

    def start(self, **changes: Any) -> Process:
        number = len(self._processes) + 1
        options = {**self.job.client_options, "client_id": f"process-{number}"}
        job = replace(self.job, client_options=options, **changes)
        process = Process(job, self.folder / f"{self.topic}-{number}.log")
        self._processes.append(process)
        return process

    def reconnect(self) -> None:
        """The broker has been away. Returns when it knows its groups again."""
        self.cluster.close()
        self.cluster = Cluster(self.broker)

        def knows_its_groups() -> bool:
            try:
                self.cluster.committed(self.job.group, self.topic)
            except KafkaError as error:
                if not error.retriable:
                    raise
                return False
            return True

        wait_for("the group's coordinator is there", knows_its_groups)

    def expect_zombie(self, process: Process, stop: Callable[[], object]) -> None:
        """`stop` it. From now on it may lose its partitions and not know it, and may fail."""
        process.may_fail = True
        since = time.monotonic()
        self._zombies[process.pid] = (since, math.inf)
        stop()
        locked = {MessageId.parse(id)[2:] for id in self.pending()}
        last = {event.chain: event for event in self.history().events if event.pid == process.pid}
        for chain, event in last.items():
            if event.kind == "failed" or (event.kind == "ended" and event.place in locked):
                self._unsettled.add(chain)

    def wait_until_given_up(self, process: Process) -> None:
        """Until the broker has taken it out of both groups."""
        wait_for(f"{process.job.client_id} is given up", lambda: not self._groups_with(process))

    def wait_until_back(self, process: Process) -> None:
        """Until it is a member again, and knows so, or has ended."""

        def is_back() -> bool:
            return process.has_ended or len(self._groups_with(process)) == 2

        wait_for(f"{process.job.client_id} is back", is_back)
        self._zombies[process.pid] = (self._zombies[process.pid][0], time.monotonic())

    def _groups_with(self, process: Process) -> list[str]:
        groups = [self.job.group, f"{self.job.group}-retry"]
        with KafkaAdminClient(bootstrap_servers=self.broker.bootstrap_servers, **self.broker.client_options) as admin:
            described = admin.describe_groups(groups)
        return [
            group
            for group in groups
            if process.job.client_id in [member["client_id"] for member in described[group]["members"]]
        ]

    def history(self) -> History:
        return History(self._reader.read(), self._zombies, self._unsettled)

    def wait_for(self, description: str, condition: Callable[[History], object], timeout: float = 150.0) -> None:
        """Until `condition` of the history holds. Fails at once where a process has ended that nobody waited for."""

        def holds() -> object:
            for process in self._processes:
                if not process._gone:
                    process.check_alive()
            return condition(self.history())

        try:
            wait_for(description, holds, timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tails()}") from None

    def tails(self) -> str:
        return "\n".join(f"--- {process.pid}\n{process.tail()}" for process in self._processes)

    def close(self) -> None:
        for process in self._processes:
            process.clean_up()
        self.cluster.close()

    # What is in the topics

    def pending(self) -> list[str]:
        """The ids that are locked, dead ones aside."""
        locks = self.cluster.locks(f"redirect-{self.topic}")
        return [id for id, entry in locks.items() if entry["state"] == "pending"]

    def dead_letters(self) -> dict[Place, list[str]]:
        """Their states, by the place of the source record. Waits for transactions that a killed process left open."""
        found: defaultdict[Place, list[str]] = defaultdict(list)
        for record in committed_records(self.broker, f"dlq-{self.topic}"):
            headers = dict(record.headers)
            place = (int(headers["x-dlq-partition"]), int(headers["x-dlq-offset"]))
            found[place].append(headers["x-dlq-state"].decode())
        return dict(found)

    def uncommitted(self) -> dict[str, tuple[int, int]]:
        """Committed and end offset, where they differ: of the source topic and of the retry topic."""
        found = {}
        for topic, group in ((self.topic, self.job.group), (f"retry-{self.topic}", f"{self.job.group}-retry")):
            committed = self.cluster.committed(group, topic)
            for partition, end in self.cluster.end_offsets(topic).items():
                at, _ = committed.get(partition, (0, ""))
                if at != end:
                    found[f"{topic}[{partition}]"] = (at, end)
        return found

    # At the end

    def wait_until_settled(self, timeout: float = 150.0) -> None:
        """Until everything produced has ended: committed on both sides, and no lock left."""
        open_ = object()

        def settled(_: History) -> bool:
            nonlocal open_
            self._pause.wait(LOOK_EVERY_S)  # a look is several requests
            try:
                open_ = self.uncommitted() or self.pending()
            except KafkaError as error:  # leaders may still move after an outage
                if not error.retriable:
                    raise
                open_ = error
                self.reconnect()
                return False
            return not open_

        try:
            self.wait_for("all is committed, and nothing is locked", settled, timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\nleft: {open_}") from None

    def finish(self, process: Process) -> History:
        """Let it handle all that is left, stop it in good order, and check every promise."""
        self.wait_until_settled()
        process.stop()
        return self.check()

    def check(self) -> History:
        history, dead = self.history(), self.dead_letters()
        try:
            history.no_loss(self.plans, dead)
            history.key_order(self.chains)
            history.honest_attempts()
            if not self.job.free_on_dlq:
                history.dead_keys_stand_still()
            self._check_dead_letters(dead, history)
            if left := self.uncommitted():
                raise BrokenPromise(f"not committed: {left}")
            if pending := self.pending():
                raise BrokenPromise(f"still locked: {pending}")
            if self.job.free_on_dlq and (locks := self.cluster.locks(f"redirect-{self.topic}")):
                raise BrokenPromise(f"dead, though keys are freed: {locks}")
        except BrokenPromise as error:
            raise BrokenPromise(f"{error}\n{self.tails()}") from None
        return history

    def _check_dead_letters(self, dead: dict[Place, list[str]], history: History) -> None:
        ended = history.places("ended")
        for place, states in dead.items():
            plan = self.plans[place].failures
            died = -1 if plan < 0 else self.job.max_retries + 1
            expected = {"parked"} if 0 <= plan < died else {"not-retriable" if plan < 0 else "exhausted", "parked"}
            if not expected.issuperset(states):
                raise BrokenPromise(f"{place} planned to fail {plan} times is in the dead-letter topic as {states}")
            if place in ended:
                raise BrokenPromise(f"{place} has succeeded, and is a dead letter too")
            if not history.killed and len(states) > 1:
                raise BrokenPromise(f"{place} is {len(states)} dead letters, and nothing was killed")
