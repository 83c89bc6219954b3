"""A cluster in memory where keys have died, and a retry consumer that obeys at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from kafetrain.core.control import Action, Control
from kafetrain.core.entry import Entry, State, encode_entry
from kafetrain.core.headers import DeadLetterState, decode_retry, dlq_headers, dlq_mark_headers, tombstone_headers
from kafetrain.deadletter import DeadLetters
from kafetrain.record import Headers, MessageId
from kafetrain.settings import Settings
from tests.unit.log_fakes import FakeLogClient, LogRecord

GROUP, TOPIC = "billing", "orders"
RETRY, REDIRECT, DLQ = "retry-orders", "redirect-orders", "dlq-orders"
AUXILIARY = (RETRY, REDIRECT, DLQ)


@dataclass
class World(FakeLogClient):
    """Group billing on orders: three source partitions, two of each auxiliary topic."""

    obeys: bool = True
    controls: list[Control] = field(default_factory=list)
    control_records: list[LogRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cluster.add(TOPIC, 3, topic_id="this")
        for name in AUXILIARY:
            self.cluster.add(name, 2)
        self.cluster.members["billing-retry"] = 1

    def id(self, offset: int, partition: int = 0, group: str = GROUP) -> MessageId:
        return MessageId(group, TOPIC, partition, offset)

    def letter(
        self,
        offset: int,
        key: bytes | None,
        *,
        partition: int = 0,
        state: str = DeadLetterState.EXHAUSTED,
        value: bytes | None = b"payload",
        own: Headers = (),
        reason: str | None = "no answer",
        error_type: str | None = "BankError",
        at_ms: int = 1000,
        group: str = GROUP,
        topic_id: str = "",
    ) -> tuple[int, int]:
        """A dead letter. Returns its place."""
        headers = dlq_headers(
            self.id(offset, partition, group),
            own,
            state=state,
            attempts=3,
            error_type=error_type,
            reason=reason,
            now_ms=at_ms,
            first_failure_ms=500,
            source_timestamp_ms=77,
            topic_id=topic_id,
        )
        return partition % 2, self.append(DLQ, partition % 2, key, value, headers, timestamp=at_ms)

    def parked(self, offset: int, key: bytes | None, **more: object) -> tuple[int, int]:
        ours: dict[str, Any] = {"state": DeadLetterState.PARKED, "reason": None, "error_type": None, **more}
        return self.letter(offset, key, **ours)

    def lock(self, offset: int, entry: Entry, *, partition: int = 0) -> int:
        key = str(self.id(offset, partition)).encode()
        return self.append(REDIRECT, partition % 2, key, encode_entry(entry))

    def end(self, id: MessageId, key: bytes | None) -> None:
        self.append(REDIRECT, id.partition % 2, str(id).encode(), None, tombstone_headers(key))

    def die(self, offset: int, key: bytes | None, *, partition: int = 0, error: str = "no answer") -> tuple[int, int]:
        """A dead letter and the dead lock that points at it."""
        place = self.letter(offset, key, partition=partition, reason=error)
        entry = Entry(key, State.DEAD, 3, 0, 500, "BankError", error, dead_at=place)
        self.lock(offset, entry, partition=partition)
        return place

    def wait(
        self, offset: int, key: bytes | None, *, partition: int = 0, attempt: int = 1, due_ms: int = 4 * 10**12
    ) -> None:
        self.lock(
            offset, Entry(key, State.PENDING, attempt, due_ms, 500, "BankError", "no answer"), partition=partition
        )

    def obey(self, record: LogRecord) -> None:
        if record.topic != RETRY:
            return
        control = decode_retry(record).control
        assert control is not None
        self.controls.append(control)
        self.control_records.append(record)
        if not self.obeys:
            return
        partition = control.id.partition
        if control.action in (Action.RELEASE, Action.SKIP):
            self.end(control.id, record.key)
        elif control.action == Action.APPEND:
            self.append(DLQ, partition % 2, record.key, b"", dlq_mark_headers(control))
            self.lock(control.id.offset, Entry(record.key), partition=partition)
            self.end(control.id, record.key)
        else:
            self.lock(control.id.offset, Entry(record.key, due_ms=self.clock.now_ms()), partition=partition)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def open_letters(world: World) -> Iterator[Callable[..., DeadLetters]]:
    """Dead letters of group billing, with changed settings; closed afterwards, with all that they have opened."""
    opened: list[DeadLetters] = []

    def make(**changes: Any) -> DeadLetters:
        settings = Settings(group_id=GROUP, bootstrap_servers=["here:9092"], **changes)
        letters = DeadLetters(settings, TOPIC, world, clock=world.clock, wait=world.clock.wait)
        opened.append(letters)
        return letters

    yield make
    for letters in opened:
        letters.close()
    assert all(reader.closed for reader in world.readers)
    assert all(producer.closed for producer in world.producers)


@pytest.fixture
def letters(open_letters: Callable[..., DeadLetters]) -> DeadLetters:
    return open_letters()
