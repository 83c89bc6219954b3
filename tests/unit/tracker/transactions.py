"""A transactor on a cluster of this process, one transaction after the other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from kafetrain.client.ports import ClientError, Committed, OutgoingRecord, RecordTooLargeForClientError
from kafetrain.outcome import Outcome
from kafetrain.record import TopicPartition
from kafetrain.tracker.state import Side
from kafetrain.tracker.transactor import Transactor
from kafetrain.tracker.writes import Writes
from tests.unit.tracker.conftest import REDIRECT, Bench

SOURCE = TopicPartition("orders", 0)


Fault = ClientError | Callable[[], None] | None


class Cluster:
    """Logs as a read_committed reader sees them, and the group's offsets. `commits`: what becomes of the next ones."""

    def __init__(self) -> None:
        self.log: list[tuple[OutgoingRecord, int]] = []
        self.offsets: dict[TopicPartition, Committed] = {}
        self.opened = self.closed = self.begun = self._next = 0
        self.commits: list[tuple[str, ClientError]] = []
        self.sends: list[ClientError] = []
        self.openings: list[ClientError] = []
        self.too_large = b""
        self.in_begin: Callable[[], None] = lambda: None
        self.delivery_timeout_s = 10.0

    def transactional_producer(self, id: str, consumer: Any) -> Producer:
        if self.openings:
            raise self.openings.pop(0)
        self.opened += 1
        self.id = id
        return Producer(self)

    def reader(self) -> Reader:
        return Reader(self)

    def next_offset(self) -> int:
        self._next += 1
        return self._next

    def topics(self) -> list[str]:
        return [record.topic.removesuffix("-orders") for record, _ in self.log]


class Producer:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._sent = cluster, list[tuple[OutgoingRecord, int]]()
        self._failed = False

    def begin(self) -> None:
        assert not self._failed
        self._sent.clear()
        self._cluster.begun += 1
        self._cluster.in_begin()

    def send(self, record: OutgoingRecord) -> Future[int]:
        future: Future[int] = Future()
        if self._cluster.sends:
            future.set_exception(self._cluster.sends.pop(0))
        elif self._cluster.too_large and record.value == self._cluster.too_large:
            self._failed = True
            future.set_exception(RecordTooLargeForClientError("too large"))
        elif self._failed:
            future.set_exception(ClientError("an earlier request has failed", retriable=True))
        else:
            self._sent.append((record, self._cluster.next_offset()))
            future.set_result(self._sent[-1][1])
        return future

    def commit(self, next_offsets: Mapping[TopicPartition, Committed]) -> None:
        assert not self._failed
        assert next_offsets, "a transaction without offsets is fenced by nothing"
        kind, error = self._cluster.commits.pop(0) if self._cluster.commits else ("committed", None)
        if kind == "committed":
            self._cluster.log += self._sent
            self._cluster.offsets |= next_offsets
        if error is not None:
            self._failed = True
            raise error

    def close(self) -> None:
        self._cluster.closed += 1


class Reader:
    """All records of the cluster share one row of offsets."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._place, self._at, self._position = REDIRECT, 0, 0

    def assign(self, positions: Mapping[TopicPartition, int | None]) -> None:
        ((self._place, at),) = positions.items()
        self._at = self._position = at or 0

    def poll(self, timeout: timedelta) -> Mapping[TopicPartition, Sequence[Any]]:
        self._position = self._at + 1
        found = [
            SimpleNamespace(offset=offset)
            for out, offset in self._cluster.log
            if offset == self._at and (out.topic, out.partition) == self._place
        ]
        return {self._place: found}

    def position(self, place: TopicPartition) -> int:
        return self._position

    def close(self) -> None: ...


class Transactions(Bench):
    """The source path, its claim in the care of a transactor that the test steps."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(delivery="transactional", **settings)
        self.cluster = Cluster()
        consumer: Any = None
        client: Any = self.cluster
        self.ended: list[BaseException] = []
        self.transactor = Transactor(
            client, consumer, self.carrying, "billing", self.clock, self.ended.append, timedelta(0)
        )
        self.transactor._stopping = Impatient(self.clock)  # type: ignore[assignment]  # its waits pass at once
        self.transactor.writes = Writes(
            self.transactor,
            self.state,
            self.settings,
            self.clock,
            when_durable=self.transactor.when_durable,
            atomic=True,
        )
        self.state.claim(Side.SOURCE, self.topic, [0], path=self.transactor)
        self.claim.locks, self.claim.ready = self.table.source(0), True
        self.carried: list[Mapping[TopicPartition, Collection[int]]] = []

    @contextmanager
    def carrying(
        self, completed: Mapping[TopicPartition, Collection[int]]
    ) -> Iterator[Mapping[TopicPartition, Committed]]:
        self.carried.append(completed)
        yield {place: Committed(max(offsets) + 1) for place, offsets in completed.items()}

    def fail(self, offset: int, key: bytes | None = b"k", error: BaseException | None = None) -> Future[Outcome]:
        """Its handler fails; what follows waits for the transactor."""
        self.fails[offset] = error or ValueError("no")
        done: Future[Outcome] = self.submit(offset, key).done
        return done

    def step(self) -> None:
        self.transactor.step()


class Impatient:
    """Waits pass the test's time, and nothing else."""

    def __init__(self, clock: Any) -> None:
        self._clock, self._is_set = clock, False
        self.on_wait: list[Callable[[], None]] = []

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True

    def wait(self, seconds: float) -> bool:
        self._clock.ms += int(seconds * 1000)
        if self.on_wait:
            self.on_wait.pop(0)()
        return self._is_set
