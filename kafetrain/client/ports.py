"""What the layers need of a Kafka client, and no more.

Offsets are the *next* to read, except where a name says `at`. Errors of the client never pass a port: they
arrive as the `Client...Error`s below, whose text is the client's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol, runtime_checkable

from msgspec import Struct

from kafetrain.errors import KafetrainError
from kafetrain.record import Headers, Record, TopicPartition

__all__ = [
    "AdminPort",
    "Client",
    "ClientError",
    "Committed",
    "ConsumerPort",
    "NotOwnerError",
    "OffsetOutOfRangeError",
    "OutcomeUnknownError",
    "OutgoingRecord",
    "ProducerPort",
    "RebalanceEvents",
    "RecordTooLargeForClientError",
    "TopicDescription",
    "TopicSpec",
    "TransactionalClient",
    "TransactionalProducerPort",
    "size_of",
]


class ClientError(KafetrainError):
    """A client call failed. `retriable`: the same call may succeed later."""

    def __init__(self, message: str, *, retriable: bool = False) -> None:
        super().__init__(message)
        self.retriable = retriable


class NotOwnerError(ClientError):
    """A commit came too late: another member of the group has the partition, or a rebalance is under way."""


class OffsetOutOfRangeError(ClientError):
    """The position of a partition is below its beginning or beyond its end."""

    def __init__(self, partitions: Collection[TopicPartition]) -> None:
        self.partitions = frozenset(partitions)
        names = ", ".join(f"{p.topic}[{p.partition}]" for p in sorted(self.partitions))
        super().__init__(f"the position is out of range in {names}")


class OutcomeUnknownError(ClientError):
    """A transaction was to be committed, and nobody says whether it was. A new producer of its id settles it."""


class RecordTooLargeForClientError(ClientError):
    """The record was refused for its size, by the client or by the broker."""


class Committed(tuple[int, str]):
    """A committed next offset and its metadata."""

    __slots__ = ()

    def __new__(cls, next_offset: int, metadata: str = "") -> Committed:
        return super().__new__(cls, (next_offset, metadata))

    @property
    def next_offset(self) -> int:
        return self[0]

    @property
    def metadata(self) -> str:
        return self[1]


class OutgoingRecord(Struct, frozen=True, gc=False):
    """A record to append. Header values are never null. A null `value` needs a `key`."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_ms: int | None = None


def size_of(record: Record | OutgoingRecord) -> int:
    """Bytes of its key, its value and its headers."""
    size = len(record.key or b"") + len(record.value or b"")
    if record.headers:
        names, values = zip(*record.headers, strict=True)
        size += sum(map(len, names)) + sum(map(len, filter(None, values)))
    return size


class RebalanceEvents(Protocol):
    """What a consumer's owner is told about its partitions. Called on the client's own thread: never block."""

    def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """These are ours now, besides what we had. They deliver nothing until resumed."""

    def revoking(
        self, partitions: frozenset[TopicPartition]
    ) -> Callable[[], Mapping[TopicPartition, Committed] | None]:
        """These go. The returned function is asked every few ms: None means that work is still in flight;

        a mapping is what to commit before they go, and ends the wait."""

    def lost(self, partitions: frozenset[TopicPartition]) -> None:
        """These are gone already; nothing may be committed."""


class ConsumerPort(Protocol):
    """One Kafka consumer. One thread calls it."""

    def subscribe(self, topics: Collection[str], events: RebalanceEvents) -> None:
        """Join the group. Assigned partitions start paused, at their committed offset or `auto_offset_reset`."""

    def assign(self, positions: Mapping[TopicPartition, int | None]) -> None:
        """Read exactly these, without a group, from the given offset. None: a partition that is read already
        goes on where it is; a new one starts at its beginning."""

    def poll(self, timeout: timedelta, max_records: int = 500) -> Mapping[TopicPartition, Sequence[Record]]:
        """Per partition in offset order. Empty after `timeout`, also while no broker answers.

        Raises `OffsetOutOfRangeError`, after which the named partitions need a `seek`."""

    def position(self, partition: TopicPartition) -> int | None:
        """Passes gaps and transaction markers: it reaches the end even where no record is left.
        None while it is not known."""

    def seek(self, partition: TopicPartition, next_offset: int) -> None: ...

    def pause(self, partitions: Collection[TopicPartition]) -> None: ...

    def resume(self, partitions: Collection[TopicPartition]) -> None: ...

    def commit(self, next_offsets: Mapping[TopicPartition, Committed]) -> None:
        """Durable on return. `NotOwnerError`: drop the state of what is no longer ours."""

    def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """High watermarks: the offsets that the next records will get, open transactions included."""

    def beginning_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]: ...

    def close(self) -> None:
        """Leave the group and free everything. Any thread, once. `revoking` is still asked, for a few seconds at
        most, and what it gives is committed; nothing else is."""


class ProducerPort(Protocol):
    """An idempotent producer, acks=all. Any thread."""

    def send(self, record: OutgoingRecord) -> Future[int]:
        """The future ends with the offset once the record is durable, or with a `ClientError` when it was
        not within the delivery timeout. It ends on a thread of the client: callbacks must not block.
        Records of one partition are appended in the order of these calls."""

    def flush(self, timeout: timedelta) -> None:
        """Wait until everything sent so far has ended, one way or the other; at most `timeout`."""

    def close(self, timeout: timedelta) -> None: ...


class TransactionalProducerPort(Protocol):
    """Transactions that carry the offsets of one consumer, and are refused once that one has lost its membership.

    One thread calls it. After any error it is of no more use: `close` it, and build another one of the same id, which
    ends whatever is open. Every call is bounded.
    """

    def begin(self) -> None:
        """The consumer's membership of this moment is what the commit is checked by. `NotOwnerError`: it has none."""

    def send(self, record: OutgoingRecord) -> Future[int]:
        """As `ProducerPort.send`, but that it counts only with the commit. Any error spoils the transaction."""

    def commit(self, next_offsets: Mapping[TopicPartition, Committed]) -> None:
        """Everything that was sent is acknowledged: make it durable together with these offsets, at least one.

        `OutcomeUnknownError`: nobody says whether that was done. Any other error: it was not, and never will be;
        `NotOwnerError` where the consumer's group has gone on without it."""

    def close(self) -> None:
        """Abort what is open, as far as brokers answer soon, and free everything."""


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """A topic as the cluster has it. `topic_id` is empty where the broker does not tell."""

    name: str
    partitions: int
    replication_factor: int
    topic_id: str = ""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic to create. `replication_factor` -1: the broker's default."""

    name: str
    partitions: int
    replication_factor: int = -1
    configs: Mapping[str, str] = field(default_factory=dict)


class AdminPort(Protocol):
    """Topics and groups. Any thread; every call blocks, at most about the request timeout."""

    def describe_topics(self, topics: Collection[str]) -> Mapping[str, TopicDescription]:
        """Those of them that exist. Never creates one."""

    def topic_configs(self, topics: Collection[str]) -> Mapping[str, Mapping[str, str]]:
        """The settings in force, defaults included. A broker that does not tell is a `ClientError`."""

    def create_topics(self, topics: Sequence[TopicSpec]) -> None:
        """Create them; one that exists already is fine. `ClientError` names the topic and the reason."""

    def grow_topic(self, topic: str, partitions: int) -> None:
        """Raise the partition count; a topic that has as many already is fine."""

    def committed(self, group: str, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Committed]:
        """Committed offsets of a group; a partition without one is absent."""

    def set_committed(self, group: str, next_offsets: Mapping[TopicPartition, Committed]) -> None:
        """Commit for a group that has no members. `NotOwnerError` where it has."""

    def group_members(self, group: str) -> int:
        """How many members a group has now; 0 also for one that nobody knows."""

    def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """High watermarks, as `ConsumerPort.end_offsets`."""

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Delete every record below the offset. `ClientError` where the broker refuses."""

    def close(self) -> None: ...


class Client(Protocol):
    """Builds consumers, a producer and an admin client from one set of settings. Building connects."""

    def group_consumer(self, group: str, *, auto_offset_reset: str, role: str = "") -> ConsumerPort:
        """`role` tells the consumers of one process in one group apart, where members are static."""

    def reader(self) -> ConsumerPort:
        """A consumer without a group; a position out of range is an error, never a jump."""

    def producer(self) -> ProducerPort: ...

    def admin(self) -> AdminPort: ...


@runtime_checkable
class TransactionalClient(Protocol):
    """What a `Client` has besides, where its library has transactions that a consumer's membership fences."""

    def transactional_producer(self, id: str, consumer: ConsumerPort) -> TransactionalProducerPort:
        """For the offsets of `consumer`, a group consumer of this client. On return no transaction of `id` is open any
        more: one that was being committed is committed, any other is aborted."""

    @property
    def delivery_timeout_s(self) -> float:
        """Within this time a write is durable or has failed."""
