"""A source path over a producer whose acknowledgements the test gives, one by one."""

from __future__ import annotations

from concurrent.futures import Future
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from kafetrain import ConstantBackoff, Settings
from kafetrain.client.ports import ClientError, OutgoingRecord
from kafetrain.core.lock_table import LockTable
from kafetrain.record import TopicPartition
from kafetrain.topic_setup import PreparedTopics
from kafetrain.topics import AuxiliaryTopics
from kafetrain.tracker.sequence import Sequencer
from kafetrain.tracker.source_path import SourcePath
from kafetrain.tracker.state import Claim, Side, TrackerState
from kafetrain.tracker.writes import Writes

REDIRECT = TopicPartition("redirect-orders", 0)


class Producer:
    """Keeps what is sent; nothing is acknowledged until the test says so."""

    def __init__(self) -> None:
        self.sent: list[OutgoingRecord] = []
        self._open: list[Future[int]] = []
        self._next = 100

    def send(self, record: OutgoingRecord) -> Future[int]:
        future: Future[int] = Future()
        self.sent.append(record)
        self._open.append(future)
        return future

    def acknowledge(self, which: int = 0) -> None:
        """The oldest write that waits, or another, is durable."""
        self._next += 1
        self._open.pop(which).set_result(self._next)

    def refuse(self) -> None:
        self._open.pop(0).set_exception(ClientError("the broker said no"))

    def topics(self) -> list[str]:
        return [record.topic.removesuffix("-orders") for record in self.sent]

    def flush(self, timeout: timedelta) -> None: ...

    def close(self, timeout: timedelta) -> None: ...


class Clock:
    def __init__(self) -> None:
        self.ms = 1_000_000

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000


class Bench:
    """One source partition, restored and registered, and everything that the source path needs."""

    def __init__(self, **settings: Any) -> None:
        settings = {"group_id": "billing", "backoff": ConstantBackoff(timedelta(seconds=5)), **settings}
        self.settings = Settings(**settings)
        self.producer, self.clock, self.state = Producer(), Clock(), TrackerState()
        self.sequencer = Sequencer(max_wait=timedelta(0))
        self.writes = Writes(self.producer, self.state, self.settings, self.clock)
        self.path = SourcePath(self.state, self.writes, self.sequencer, self.settings, self.clock)
        names = AuxiliaryTopics.of(self.settings, "orders")
        self.topic = PreparedTopics(names, 1, dict.fromkeys(names.auxiliary, 1), "id-1")
        self.state.add_topic(self.topic)
        self.table = self.state.tables[REDIRECT] = LockTable()
        self.state.claim(Side.SOURCE, self.topic, [0])
        self.claim.locks = self.table.source(0)
        self.claim.ready = True
        self.runs: list[int] = []
        self.fails: dict[int, BaseException] = {}

    @property
    def claim(self) -> Claim:
        return self.state.source_claims[TopicPartition("orders", 0)]

    def handler(self, record: Any) -> object:
        self.runs.append(record.offset)
        if record.offset in self.fails:
            raise self.fails[record.offset]
        return None

    def submit(self, offset: int, key: bytes | None = b"k", handler: Any = None) -> Any:
        return self.path.submit(record(offset, key), handler or self.handler)

    def settle(self) -> None:
        """Acknowledge everything, until nothing follows any more."""
        while self.producer._open:
            self.producer.acknowledge()
            self.sequencer.step()


def record(offset: int, key: bytes | None = b"k", value: bytes | None = b"v", headers: Any = ()) -> Any:
    return SimpleNamespace(
        topic="orders", partition=0, offset=offset, key=key, value=value, headers=headers, timestamp=77
    )


@pytest.fixture
def bench() -> Bench:
    return Bench()
