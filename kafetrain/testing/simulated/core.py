"""What all simulated clients of a cluster share: its topics, its groups, its faults, and one mutex.

Where clients are used by threads, calls that wait do wait, and every change wakes them. Otherwise no call ever waits:
it does what can be done now.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from kafetrain.client.ports import ClientError
from kafetrain.clock import Clock
from kafetrain.record import TopicPartition
from kafetrain.testing.simulated.coordinator import Coordinator
from kafetrain.testing.simulated.faults import Asked, Fault, LoseAnswer, Refuse, Request, Script
from kafetrain.testing.simulated.group import Group
from kafetrain.testing.simulated.log import PartitionLog

__all__ = ["ClusterCore", "Instance", "Topic"]

BROKER_DEFAULTS = {
    "cleanup.policy": "delete",
    "compression.type": "producer",
    "delete.retention.ms": "86400000",
    "max.message.bytes": "1048588",
    "min.compaction.lag.ms": "0",
    "min.insync.replicas": "1",
    "retention.bytes": "-1",
    "retention.ms": "604800000",
    "segment.bytes": "1073741824",
    "segment.ms": "604800000",
}
POLICIES = {"delete", "compact", "compact,delete", "delete,compact"}
WAIT_SLICE_S = 0.01


@dataclass(slots=True)
class Topic:
    """A topic, its settings that differ from the defaults, and its logs."""

    name: str
    id: str
    configs: dict[str, str]
    logs: list[PartitionLog]

    def grow(self, partitions: int) -> None:
        self.logs += [PartitionLog(TopicPartition(self.name, n)) for n in range(len(self.logs), partitions)]

    def config(self, name: str) -> str:
        return self.configs.get(name, BROKER_DEFAULTS.get(name, ""))


@dataclass(slots=True, eq=False)
class Instance:
    """Everything that one process has open, by the name of its client."""

    name: str
    is_dead: bool = False
    """Killed: nothing that it asks for happens any more."""
    is_cut: bool = False
    """It reaches no broker."""
    fetch_at_most: int | None = None
    """What one poll gives at most, however much there is: readers that lag."""
    on_silence: list[Callable[[], None]] = field(default_factory=list)
    """Told when it is killed or cut off."""
    on_voice: list[Callable[[], None]] = field(default_factory=list)
    """Told when it is back."""


class ClusterCore:
    """`mutex` guards everything of the cluster; no future is ended and no callback is called with it held."""

    def __init__(
        self,
        clock: Clock,
        *,
        threads: bool,
        transaction_timeout_s: float,
        meanwhile: Callable[[], object],
    ) -> None:
        self.clock, self.threads, self._meanwhile = clock, threads, meanwhile
        self.mutex = threading.RLock()
        self.changed = threading.Condition(self.mutex)
        """Notified whenever something may have become possible."""
        self.topics: dict[str, Topic] = {}
        self.groups: dict[str, Group] = {}
        self.scripts: list[Script] = []
        self.is_up = True
        self._numbers = 0
        self.coordinator = Coordinator(self, transaction_timeout_s)

    # Topics

    def create(self, name: str, partitions: int, configs: Mapping[str, str]) -> Topic:
        """One that exists is left as it is."""
        if name in self.topics:
            return self.topics[name]
        if configs.get("cleanup.policy", "delete") not in POLICIES:
            raise ClientError(f"{name}: InvalidConfig: {configs['cleanup.policy']!r} is no cleanup.policy")
        if partitions < 1:
            raise ClientError(f"{name}: InvalidPartitions: {partitions}")
        topic = Topic(name, str(uuid.UUID(int=self.number())), dict(configs), [])
        topic.grow(partitions)
        self.topics[name] = topic
        self.rebalance_groups_of(name)
        return topic

    def log(self, place: TopicPartition) -> PartitionLog:
        """Raises a `ClientError` for what does not exist."""
        topic = self.topics.get(place.topic)
        if topic is None or not 0 <= place.partition < len(topic.logs):
            raise ClientError(f"UnknownTopicOrPartition: {place.topic}[{place.partition}]")
        return topic.logs[place.partition]

    def find_log(self, place: TopicPartition) -> PartitionLog | None:
        topic = self.topics.get(place.topic)
        return topic.logs[place.partition] if topic is not None and place.partition < len(topic.logs) else None

    def group(self, name: str) -> Group:
        found = self.groups.get(name)
        if found is None:
            found = self.groups[name] = Group(name, self._partitions_of, self.clock.monotonic)
        found.check()
        return found

    def rebalance_groups_of(self, topic: str) -> None:
        """The topic has come, grown or gone: its consumers notice."""
        for group in self.groups.values():
            if any(topic in member.topics for member in group.members.values()):
                group.rebalance()

    def number(self) -> int:
        """One that nobody had before."""
        self._numbers += 1
        return self._numbers

    def _partitions_of(self, topic: str) -> int:
        found = self.topics.get(topic)
        return 0 if found is None else len(found.logs)

    # Requests

    def ask(self, instance: Instance, request: Request, topics: Collection[str] = ()) -> ClientError | None:
        """Begin a request of a client that waits for its answer, without the mutex held.

        Raises what it fails with, nothing having happened. Returned: do it, then raise this.
        """
        fault = self.begin(instance, request, topics)
        return fault.error if isinstance(fault, LoseAnswer) else None

    def begin(self, instance: Instance, request: Request, topics: Collection[str] = ()) -> Fault | None:
        """As `ask`. Returned: the fault that it meets."""
        self._meanwhile()
        with self.mutex:
            self.coordinator.check()
        script = self.script_for(Asked(request, instance.name, tuple(topics)))
        if script is not None:
            script.hit()
            if isinstance(script.fault, Refuse):
                raise script.fault.error
            if callable(script.fault):
                script.fault(Asked(request, instance.name, tuple(topics)))
        if not self.reaches(instance):
            raise ClientError(f"{request.value}: no broker answers (simulated)", retriable=True)
        return None if script is None else script.fault

    def script_for(self, asked: Asked) -> Script | None:
        """The oldest that matches."""
        with self.mutex:
            self.scripts = [script for script in self.scripts if script.times != 0]
            return next((script for script in self.scripts if script.matches(asked)), None)

    def reaches(self, instance: Instance) -> bool:
        return self.is_up and not instance.is_dead and not instance.is_cut

    def wake(self) -> None:
        """Something has changed."""
        with self.changed:
            self.changed.notify_all()

    def wait_until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """True as soon as it holds. Without threads: only one look, and then others may go on."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            left_s = deadline - time.monotonic()
            if not self.threads:
                self._meanwhile()
                return False
            if left_s <= 0:
                return False
            with self.changed:
                self.changed.wait(min(left_s, WAIT_SLICE_S))
        return True
