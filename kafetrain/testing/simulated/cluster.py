"""A Kafka cluster in memory, behind the ports: what tests see and steer of it.

    cluster = SimulatedCluster()
    cluster.create_topic("orders", partitions=2)
    with KafkaConsumer.resilient(settings, "orders", handle, client=cluster.client()):
        cluster.write("orders", b"ann", b"first", b"second")

Each name given to `client` is one instance of an application: it can be killed, or cut off, with all that it has open.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kafetrain.client.ports import Committed
from kafetrain.clock import Clock, SystemClock
from kafetrain.core.dead_letter import decode_dead_letter
from kafetrain.core.headers import DeadLetterState, Malformed
from kafetrain.record import Headers, MessageId, TopicPartition
from kafetrain.settings import Settings
from kafetrain.testing.events import Place, Standing, Written
from kafetrain.testing.simulated.client import SimulatedClient
from kafetrain.testing.simulated.coordinator import OngoingTransaction
from kafetrain.testing.simulated.core import ClusterCore, Instance
from kafetrain.testing.simulated.faults import Fault, Request, Script
from kafetrain.testing.simulated.log import PartitionLog, SimulatedRecord
from kafetrain.testing.simulated.producer import Write
from kafetrain.testing.simulated.standing import standing_of
from kafetrain.testing.simulated.transaction import Transaction

__all__ = ["SimulatedCluster"]


class SimulatedCluster:
    """Topics, groups and logs, by one mutex: any thread may call it, and may use its clients.

    `clock`: of timestamps, sessions and timeouts; the machine's where none is given. `threads` False: no call of a
    client ever waits, so that one thread can step through everything, in an order that repeats.
    `session_timeout_s`, `rebalance_timeout_s`, `delivery_timeout_s` and `transaction_timeout_s` are the consumers' and
    producers'. `meanwhile`: without threads, called before each request and where a call would wait; a test may let
    others go on in it.

    Left out: replicas, throttling, authorization, and cooperative rebalances.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        threads: bool = True,
        session_timeout_s: float = 45.0,
        rebalance_timeout_s: float = 300.0,
        delivery_timeout_s: float = 36.0,
        transaction_timeout_s: float = 10.0,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        self._core = ClusterCore(
            clock or SystemClock(), threads=threads, transaction_timeout_s=transaction_timeout_s, meanwhile=meanwhile
        )
        self._timeouts = (session_timeout_s, rebalance_timeout_s, delivery_timeout_s)
        self._clients: dict[str, SimulatedClient] = {}

    # Clients, and what becomes of them

    def client(self, name: str = "client") -> SimulatedClient:
        """The instance of this name; a new one where there is none, or where it was killed."""
        found = self._clients.get(name)
        if found is None or found.instance.is_dead:
            found = self._clients[name] = SimulatedClient(self._core, Instance(name), *self._timeouts)
        return found

    def kill(self, name: str) -> None:
        """Its process ends: it asks for nothing any more, leaves no group, and what it has sent and has not landed is
        gone (`land` what shall land, before). Its members stay until their sessions end."""
        self._silence(name, is_dead=True)

    def cut_off(self, name: str) -> None:
        """No request of it reaches a broker until `reconnect`. What it sends meanwhile waits for that, and fails after
        the delivery timeout."""
        self._silence(name, is_dead=False)

    def reconnect(self, name: str) -> None:
        instance = self.client(name).instance
        instance.is_cut = False
        for call in tuple(instance.on_voice):
            call()
        self._core.wake()

    def expire(self, name: str) -> None:
        """The sessions of its members end now, whether it knows or not."""
        with self._core.mutex:
            for group in self._core.groups.values():
                for member in [member for member in group.members.values() if member.client == name]:
                    group.leave(member)
        self._core.wake()

    def stop(self) -> None:
        """No broker answers until `start`. Topics, offsets and groups stay."""
        with self._core.mutex:
            self._core.is_up = False

    def start(self) -> None:
        self._core.is_up = True
        for client in tuple(self._clients.values()):
            for call in () if client.instance.is_dead else tuple(client.instance.on_voice):
                call()
        self._core.wake()

    def settle(self) -> None:
        """Let time have its effect on writes (after a clock was moved): those end that have had theirs."""
        with self._core.mutex:
            self._core.coordinator.check()
        for client in tuple(self._clients.values()):
            client.go_on()

    # Faults

    def on(
        self,
        request: Request,
        fault: Fault,
        *,
        client: str | None = None,
        topic: str | None = None,
        times: int | None = 1,
    ) -> Script:
        """The next `times` requests of this kind (None: all) meet `fault`. `client`, `topic` None: any.

        Scripts are asked in the order in which they were made; a request meets one at most.
        """
        script = Script(request, fault, client, topic, times)
        with self._core.mutex:
            self._core.scripts.append(script)
        return script

    def in_flight(self, client: str | None = None) -> list[Write]:
        """Writes that have not ended, of one instance or of all, in the order in which each was sent."""
        return [write for name, c in self._clients.items() if client in (None, name) for write in c.open_writes()]

    def transactions(self) -> list[OngoingTransaction]:
        """Of producers: those that are open, and those that are decided and lack markers."""
        with self._core.mutex:
            return self._core.coordinator.ongoing()

    # Topics

    def create_topic(self, name: str, partitions: int = 1, configs: Mapping[str, str] | None = None) -> str:
        """Returns the name."""
        with self._core.mutex:
            self._core.create(name, partitions, configs or {})
        return name

    def grow_topic(self, name: str, partitions: int) -> None:
        with self._core.mutex:
            self._core.topics[name].grow(partitions)
            self._core.rebalance_groups_of(name)
        self._core.wake()

    def delete_topic(self, name: str) -> None:
        """With its records. Groups keep what they have committed for it."""
        with self._core.mutex:
            del self._core.topics[name]
            self._core.rebalance_groups_of(name)
        self._core.wake()

    def compact(self, topic: str, *, before: int | None = None) -> int:
        """Superseded records vanish, of those below `before` (None: all). Returns how many did."""
        with self._core.mutex:
            return sum(log.compact(log.next_offset if before is None else before) for log in self._logs(topic))

    def remove_tombstones(self, topic: str, *, before: int | None = None) -> int:
        """As if `delete.retention.ms` had passed for those below `before`. Returns how many vanished."""
        with self._core.mutex:
            return sum(
                log.remove_tombstones(log.next_offset if before is None else before) for log in self._logs(topic)
            )

    def delete_records(self, topic: str, before: int, *, partition: int = 0) -> None:
        with self._core.mutex:
            self._core.log(TopicPartition(topic, partition)).delete_before(before)

    # Records

    def write(
        self, topic: str, key: bytes | None, *values: bytes | None, partition: int = 0, headers: Headers = ()
    ) -> list[Written]:
        """Records of one key, as another application writes them; durable on return."""
        with self._core.mutex:
            log, now_ms = self._core.log(TopicPartition(topic, partition)), self._core.clock.now_ms()
            offsets = [log.append(key, value, headers, now_ms, "") for value in values]
        self._core.wake()
        return [Written(partition, offset, key) for offset in offsets]

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Of another application. It is committed at the end of the block, and aborted by an exception."""
        transaction = Transaction(self._core)
        try:
            yield transaction
        except BaseException:
            transaction.abort()
            raise
        transaction.commit()

    def begin_transaction(self) -> Transaction:
        """As `transaction`, to be ended by hand."""
        return Transaction(self._core)

    def read(self, topic: str) -> list[SimulatedRecord]:
        """All records that a reader would see, partition by partition."""
        with self._core.mutex:
            return list(
                itertools.chain.from_iterable(
                    log.read(log.begin_offset, log.next_offset + 1)[0] for log in self._logs(topic)
                )
            )

    # What the topics and groups say

    def topics(self) -> dict[str, int]:
        """Partition counts by name."""
        with self._core.mutex:
            return {name: len(topic.logs) for name, topic in self._core.topics.items()}

    def begin_offsets(self, topic: str) -> dict[int, int]:
        with self._core.mutex:
            return {log.place.partition: log.begin_offset for log in self._logs(topic)}

    def end_offsets(self, topic: str) -> dict[int, int]:
        with self._core.mutex:
            return {log.place.partition: log.next_offset for log in self._logs(topic)}

    def committed(self, group: str, topic: str) -> dict[int, Committed]:
        """By partition; those without are left out."""
        with self._core.mutex:
            known = self._core.group(group).committed
            return {place.partition: offset for place, offset in known.items() if place.topic == topic}

    def commit(self, group: str, topic: str, next_offsets: Mapping[int, int], metadata: str = "") -> None:
        """As an operator's tool does."""
        with self._core.mutex:
            self._core.group(group).committed |= {
                TopicPartition(topic, partition): Committed(offset, metadata)
                for partition, offset in next_offsets.items()
            }

    def assignment(self, group: str) -> dict[TopicPartition, str]:
        """Which instance has which partition, as the group's coordinator sees it."""
        with self._core.mutex:
            members = self._core.group(group).members.values()
            return {place: member.client for member in members for place in member.assigned}

    def locks(self, redirect_topic: str) -> dict[str, dict[str, Any]]:
        """What the redirect topic says in the end, of every group: message id -> entry. Garbage is an empty entry."""
        entries: dict[str, dict[str, Any]] = {}
        for record in self.read(redirect_topic) if redirect_topic in self._core.topics else ():
            try:
                id = str(MessageId.parse((record.key or b"").decode()))
            except ValueError:
                continue  # a registration, or nobody's
            entries.pop(id, None)
            if record.value is not None:
                try:
                    entry = json.loads(record.value)
                except (ValueError, RecursionError):
                    entry = None
                entries[id] = entry if isinstance(entry, dict) else {}
        return entries

    def dead_places(self, dlq_topic: str, group: str | None = None) -> dict[Place, str]:
        """Which source records are in the dead-letter topic, of one group or of all, and in which state.

        Not among them: what nobody of ours wrote, and damaged records of the retry topic.
        """
        found = {}
        for record in self.read(dlq_topic) if dlq_topic in self._core.topics else ():
            try:
                letter = decode_dead_letter(record)
            except Malformed:
                continue
            if group in (None, letter.id.group) and letter.state != DeadLetterState.MALFORMED:
                found[letter.id.partition, letter.id.offset] = letter.state
        return found

    def standing(
        self,
        settings: Settings,
        topic: str,
        written: Iterable[Written] = (),
        group_of: Callable[[str], str] | None = None,
    ) -> Standing:
        """Where a group stands with a source topic. `written`: all records of the topic that count.

        `group_of`: the group of an instance, by its name; without it nobody's writes are foreign.
        """
        return standing_of(self, settings, topic, tuple(written), group_of)

    def _logs(self, topic: str) -> Iterable[PartitionLog]:
        return self._core.topics[topic].logs

    def _silence(self, name: str, *, is_dead: bool) -> None:
        instance = self.client(name).instance
        with self._core.mutex:
            instance.is_dead = instance.is_dead or is_dead
            instance.is_cut = True
            for call in tuple(instance.on_silence):
                call()
        self._core.wake()
