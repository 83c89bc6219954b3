"""What a librdkafka consumer has given and its owner has not taken yet, partition by partition in offset order.

Two threads meet here: the one that consumes puts, the one that polls takes. A position moves when something is taken,
not before, and it passes gaps: at the end of a partition the library says where that is.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, repeat
from typing import Any

from confluent_kafka import KafkaError, Message
from msgspec import Struct

from kafetrain.record import Headers, Record, TopicPartition

__all__ = ["ConfluentRecord", "Inbox", "Item", "items_of"]

FEW = 500
"""Records that are made ready, until its owner asks for more at a time."""

HELD_AT_MOST = 1_000
"""Records of a paused partition that wait here. Beyond, the library is told to pause it too, which throws away what
it has fetched: not worth it for a short pause."""


class ConfluentRecord(Struct, eq=False, gc=False):
    """A message of the library as a `Record`, asked when it is asked: there is one for each record consumed, and of the
    seven attributes most handlers want two. A `Struct` is made in a third of the time that an object takes, and the
    garbage collector never looks at it."""

    topic: str
    partition: int
    message: Any

    @property
    def offset(self) -> int:
        return self.message.offset()  # type: ignore[no-any-return]

    @property
    def key(self) -> bytes | None:
        return self.message.key()  # type: ignore[no-any-return]

    @property
    def value(self) -> bytes | None:
        return self.message.value()  # type: ignore[no-any-return]

    @property
    def timestamp(self) -> int:
        return self.message.timestamp()[1]  # type: ignore[no-any-return]

    @property
    def headers(self) -> Headers:
        return self.message.headers() or ()


@dataclass(slots=True)
class Item:
    """Records of one partition; or none, and where it ends or why it does not go on."""

    place: TopicPartition
    records: Sequence[Record]
    end: int | None = None
    failure: Any = None


def items_of(messages: Iterable[Any]) -> Iterator[Item]:
    """Messages as the library gave them."""
    for number, in_partition in groupby(messages, Message.partition):
        for topic, group in groupby(in_partition, Message.topic):
            run = list(group)
            if any(map(Message.error, run)):
                yield from _with_errors(topic, number, run)
            else:
                yield Item(TopicPartition(topic, number), _records(topic, number, run))


def _with_errors(topic: str, number: int, run: list[Any]) -> Iterator[Item]:
    place = TopicPartition(topic or "", number)
    for failed, group in groupby(run, lambda message: message.error() is not None):
        if not failed:
            yield Item(place, _records(topic, number, list(group)))
            continue
        for message in group:
            if message.error().code() == KafkaError._PARTITION_EOF:
                yield Item(place, (), end=message.offset())
            else:
                yield Item(place, (), failure=message.error())


def _records(topic: str, number: int, run: list[Any]) -> list[Record]:
    return list(map(ConfluentRecord, repeat(topic), repeat(number), run))  # no step of it is the interpreter's


class Inbox:
    """Any thread. `changed` guards everything here; nothing else is taken inside, and nobody is called."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._ready: deque[Item] = deque()
        self._ready_count = 0
        self.room = FEW
        """What the owner takes at once. So much is made ready while it is at work with what came before."""
        self._held: dict[TopicPartition, deque[Item]] = {}  # of paused partitions
        self._paused: set[TopicPartition] = set()
        self._moving: Counter[TopicPartition] = Counter()  # what comes of them is from before the move
        self._positions: dict[TopicPartition, int] = {}

    # The thread that consumes

    @property
    def has_room(self) -> bool:
        """With `changed` held."""
        return self._ready_count < self.room

    def put(self, items: Iterable[Item]) -> list[TopicPartition]:
        """Returns the paused partitions that the library must pause as well."""
        overfull = []
        with self.changed:
            for item in items:
                if self._moving[item.place] > 0:
                    continue
                if item.place not in self._paused:
                    self._ready.append(item)
                    self._ready_count += len(item.records)
                    continue
                held = self._held.setdefault(item.place, deque())
                held.append(item)
                if sum(len(one.records) for one in held) >= HELD_AT_MOST:
                    overfull.append(item.place)
            self.changed.notify_all()
        return overfull

    def begin(self, places: Collection[TopicPartition]) -> None:
        """Paused, nothing delivered, at a position that is not known."""
        with self.changed:
            self._drop(places)
            self._paused |= set(places)

    def begins_at(self, place: TopicPartition, position: int) -> None:
        with self.changed:
            self._positions.setdefault(place, position)

    def moved(self, places: Collection[TopicPartition]) -> None:
        """What comes from now on is from the new position."""
        with self.changed:
            self._moving.subtract(list(places))  # of a mapping it would take the values
            self._moving = +self._moving

    def forget(self, places: Collection[TopicPartition]) -> None:
        with self.changed:
            self._drop(places)
            self._paused -= set(places)

    def is_paused(self, place: TopicPartition) -> bool:
        with self.changed:
            return place in self._paused

    # The thread that polls

    def take(
        self, give_up_at: float, max_records: int, is_over: threading.Event
    ) -> tuple[dict[TopicPartition, Sequence[Record]], list[Item]]:
        """Records by partition, and failures; nothing at `give_up_at` (monotonic), or when it is over."""
        batches: dict[TopicPartition, Sequence[Record]] = {}
        failures: list[Item] = []
        self.room = max_records
        with self.changed:
            while not is_over.is_set():
                self._take_ready(batches, failures, max_records)
                wait = give_up_at - time.monotonic()
                if batches or failures or wait <= 0:
                    break
                self.changed.wait(wait)
            self.changed.notify_all()
        return batches, failures

    def _take_ready(self, batches: dict[TopicPartition, Sequence[Record]], failures: list[Item], room: int) -> None:
        while self._ready and room > 0:
            item = self._ready[0]
            if item.failure is not None:
                if not batches:  # otherwise they would be lost with the error
                    failures.append(self._ready.popleft())
                return
            if len(item.records) > room:
                records, item.records = item.records[:room], item.records[room:]
            else:
                records = item.records
                self._ready.popleft()
            if records:
                room -= len(records)
                self._ready_count -= len(records)
                known = batches.get(item.place)
                batches[item.place] = records if known is None else [*known, *records]
                self._positions[item.place] = records[-1].offset + 1
            elif item.end is not None:
                self._positions[item.place] = max(item.end, self._positions.get(item.place, 0))

    def position(self, place: TopicPartition) -> int | None:
        with self.changed:
            return self._positions.get(place)

    def pause(self, places: Collection[TopicPartition]) -> None:
        with self.changed:
            self._paused |= set(places)
            kept: deque[Item] = deque()
            for item in self._ready:
                if item.place in self._paused:
                    self._ready_count -= len(item.records)
                    self._held.setdefault(item.place, deque()).append(item)
                else:
                    kept.append(item)
            self._ready = kept
            self.changed.notify_all()

    def resume(self, places: Collection[TopicPartition]) -> None:
        with self.changed:
            self._paused -= set(places)
            for place in places:
                for item in reversed(self._held.pop(place, ())):
                    self._ready.appendleft(item)
                    self._ready_count += len(item.records)
            self.changed.notify_all()

    def move(self, place: TopicPartition, position: int | None) -> None:
        """Deliver nothing of it until `moved` is called as often as this was."""
        with self.changed:
            self._drop([place])
            self._moving[place] += 1
            if position is not None:
                self._positions[place] = position

    def _drop(self, places: Collection[TopicPartition]) -> None:
        gone = set(places)
        self._ready = deque(item for item in self._ready if item.place not in gone)
        self._ready_count = sum(len(item.records) for item in self._ready)
        for place in gone:
            self._held.pop(place, None)
            self._positions.pop(place, None)
