"""Retry schedule: what one retry partition holds, and what of it may run now.

A held record waits for two things: to be the head of its chain, which the lock table knows, and to be due. Heads
wait in a heap by due time; nothing ever sleeps on a record, and nothing is searched. Held records are bounded:
beyond the bound a head keeps only its place in the retry topic and is fetched again when its turn is near, and of what
follows a head nothing is left but that place, in an index. So reading goes on however many keys wait, however long,
and with however much behind them.

Pure. Guarded by the tracker's mutex, since it looks into the lock table.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from typing import TypeAlias

from kafetrain.core.chain import Chain, ChainKey, chain_key
from kafetrain.core.headers import RetryInfo
from kafetrain.core.lock_table import LockTable
from kafetrain.core.places import Places
from kafetrain.core.rules import runnable_head, to_park
from kafetrain.record import Record

__all__ = ["Held", "RetrySchedule", "SourcePlace"]

SourcePlace: TypeAlias = "tuple[int, int]"
"""Partition and offset of a source record."""

FETCH_AHEAD_MS = 1_000
"""How long before its due time a record without its payload is fetched again."""
FETCH_TOGETHER = 64
"""Followers that are fetched again along with a head: they stand next to each other in most retry topics."""


class Held:
    """One record of the retry topic that has not ended."""

    __slots__ = ("at", "busy", "info", "place", "record", "size", "wake_ms")

    def __init__(
        self, place: SourcePlace, at: int, record: Record | None, size: int, info: RetryInfo | None = None
    ) -> None:
        self.place = place
        self.at = at
        """Its offset in the retry topic."""
        self.record = record
        """None: dropped, to be fetched again."""
        self.info = info
        """What its headers say, where they have been read already."""
        self.size = size
        """Of the payload that is in memory."""
        self.busy = False
        """Runs, or a write of its outcome is in flight."""
        self.wake_ms: int | None = None
        """Its valid place in the heap."""


class RetrySchedule:
    """`max_records` and `max_bytes` bound the payloads in memory."""

    def __init__(self, table: LockTable, *, max_records: int, max_bytes: int, free_dead: bool) -> None:
        self._table = table
        self._max_records, self._max_bytes = max_records, max_bytes
        self._free_dead = free_dead
        self._heap: list[tuple[int, int, Held]] = []
        self._pushes = itertools.count()
        self._wanted: dict[int, Held] = {}
        self._held: dict[SourcePlace, Held] = {}
        self._loaded: dict[SourcePlace, Held] = {}  # of them, with their payloads: oldest first
        self._left: dict[int, Places] = {}  # what is held besides, by source partition
        self.loaded_bytes = 0
        self.to_park: deque[Held] = deque()
        """Next in line behind a dead head. Marked busy."""
        self.to_release: deque[SourcePlace] = deque()
        """Dead heads, where keys are freed when a record of theirs dies."""
        self.ended: deque[Held] = deque()
        """Ended by somebody else while we held them. Dropped already; their copies are complete."""

    # What was read

    def hold(self, held: Held) -> bool:
        """Keep a record of a pending id. False for a second copy of one that is held."""
        if self.holds(held.place):
            return False
        self._held[held.place] = held
        self._keep_payload(held)
        return True

    def holds(self, place: SourcePlace) -> bool:
        return place in self._held or ((left := self._left.get(place[0])) is not None and place[1] in left)

    def get(self, place: SourcePlace) -> Held | None:
        """What is held of this id: the same object from now on."""
        held = self._held.get(place)
        left = self._left.get(place[0])
        if held is None and left is not None and (at := left.pop(place[1], None)) is not None:
            held = self._held[place] = Held(place, at, None, 0)
        return held

    @property
    def held_count(self) -> int:
        return len(self._held) + sum(map(len, self._left.values()))

    @property
    def loaded_records(self) -> int:
        """Those whose payloads are in memory."""
        return len(self._loaded)

    def drop(self, held: Held) -> None:
        """Its id has ended."""
        del self._held[held.place]
        self._wanted.pop(held.at, None)
        if held.record is not None:
            self._drop_payload(held)

    # What changed

    def touch(self, partition: int, key: ChainKey, offset: int | None = None) -> None:
        """A chain changed (a record of it is held now, an entry was written, an id ended): look at it again.

        `offset`: the id that changed, where one did.
        """
        locks = self._table.source(partition)
        if offset is not None:
            held = self.get((partition, offset))
            if held is not None and not held.busy and not locks.entries.has_pending(offset):
                self.drop(held)
                self.ended.append(held)
        chain = locks.chains.get(key)
        if chain is None:
            return
        head = runnable_head(locks, chain)
        if head is not None:
            held = self.get((partition, head))
            if held is not None and not held.busy:
                self._schedule(held, locks.entries.due_ms(head))
        elif chain.open:
            self._touch_dead(partition, chain)

    def touch_all(self) -> None:
        """Look at every chain: the partition is ours since now, or its table was rebuilt."""
        for partition, left in self._left.items():
            entries = self._table.source(partition).entries
            for offset in [offset for offset in left if offset not in entries]:
                self.get((partition, offset))
        for held in tuple(self._held.values()):
            if not held.busy and held.place[1] not in self._table.source(held.place[0]).entries:
                self.drop(held)  # it ended while the log was read again
                self.ended.append(held)
        for partition, locks in self._table.sources.items():
            for key in tuple(locks.chains):
                self.touch(partition, key)

    def _touch_dead(self, partition: int, chain: Chain) -> None:
        if self._free_dead:
            if (partition, chain.open[0]) not in self.to_release:
                self.to_release.append((partition, chain.open[0]))
            return
        follower = to_park(self._table.source(partition), chain)
        held = None if follower is None else self.get((partition, follower))
        if held is None or held.busy:
            return
        if held.record is None:
            self._want(held, chain)
        else:
            held.busy = True
            self.to_park.append(held)

    # What may run

    def pop_due(self, now_ms: int) -> list[Held]:
        """The heads that may run now, each marked busy. Earliest first."""
        due: list[Held] = []
        while self._heap and self._heap[0][0] <= now_ms:
            wake_ms, _, held = heapq.heappop(self._heap)
            if held.wake_ms != wake_ms or held.busy or self._held.get(held.place) is not held:
                continue
            held.wake_ms = None
            partition, offset = held.place
            locks = self._table.source(partition)
            if offset not in locks.entries:
                continue
            chain, due_ms = locks.chains.get(chain_key(locks.entries.key(offset), offset)), locks.entries.due_ms(offset)
            if chain is None or runnable_head(locks, chain) != offset:
                continue
            if held.record is None:
                self._want(held, chain)
            elif due_ms > now_ms:
                self._schedule(held, due_ms)
            else:
                held.busy = True
                due.append(held)
        return due

    def next_wake_ms(self) -> int | None:
        """When `pop_due` may have something; None: not before something changes. Can be too early."""
        return self._heap[0][0] if self._heap else None

    def _schedule(self, held: Held, due_ms: int) -> None:
        wake_ms = due_ms if held.record is not None else due_ms - FETCH_AHEAD_MS
        if held.wake_ms != wake_ms:
            held.wake_ms = wake_ms
            heapq.heappush(self._heap, (wake_ms, next(self._pushes), held))

    # The bound

    @property
    def full(self) -> bool:
        return self.loaded_records >= self._max_records or self.loaded_bytes >= self._max_bytes

    @property
    def below_half(self) -> bool:
        return self.loaded_records * 2 < self._max_records and self.loaded_bytes * 2 < self._max_bytes

    @property
    def crowded(self) -> bool:
        """Payloads have to go: the bound is reached, or what is wanted finds no room."""
        return self.full or (bool(self._wanted) and not self._has_room)

    @property
    def _has_room(self) -> bool:
        """For a quarter of the bound: to read the retry topic again for less would cost too much."""
        return self.loaded_records * 4 <= self._max_records * 3 and self.loaded_bytes * 4 <= self._max_bytes * 3

    def shed(self, now_ms: int) -> None:
        """Drop the payloads of what cannot run soon, until below half of the bound."""
        for held in tuple(self._loaded.values()):
            if self.below_half:
                return
            if not held.busy and not self._soon(held, now_ms):
                self._drop_payload(held)
                held.record, held.info, held.wake_ms = None, None, None
                self._touch_place(held)
                if held.wake_ms is None and held.at not in self._wanted:  # it follows another
                    del self._held[held.place]
                    self._left.setdefault(held.place[0], Places())[held.place[1]] = held.at

    def want(self, held: Held) -> None:
        """Fetch its payload again, whenever its turn is."""
        self._wanted[held.at] = held

    @property
    def wants(self) -> bool:
        """Is there something to fetch again, and room for it?"""
        return bool(self._wanted) and self._has_room

    def wanted(self) -> dict[int, Held]:
        """What to fetch again now, by offset in the retry topic: as much as there is room for."""
        room = max(0, self._max_records - self.loaded_records)
        return dict(itertools.islice(self._wanted.items(), room)) if self.wants else {}

    def load(self, held: Held, record: Record, size: int) -> None:
        """The payload is back."""
        del self._wanted[held.at]
        held.record, held.wake_ms, held.size = record, None, size
        self._keep_payload(held)
        self._touch_place(held)

    def _want(self, head: Held, chain: Chain) -> None:
        partition = head.place[0]
        for offset in (head.place[1], *itertools.islice(chain.open, FETCH_TOGETHER)):
            held = self.get((partition, offset))
            if held is not None and held.record is None:
                self._wanted[held.at] = held

    def _soon(self, held: Held, now_ms: int) -> bool:
        return held.wake_ms is not None and held.wake_ms <= now_ms + FETCH_AHEAD_MS

    def _touch_place(self, held: Held) -> None:
        partition, offset = held.place
        entries = self._table.source(partition).entries
        if offset in entries:
            self.touch(partition, chain_key(entries.key(offset), offset))

    def _keep_payload(self, held: Held) -> None:
        self._loaded[held.place] = held
        self.loaded_bytes += held.size

    def _drop_payload(self, held: Held) -> None:
        del self._loaded[held.place]
        self.loaded_bytes -= held.size
