"""One retry partition that is ours: what was read of it, what of that is open, what is under way."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from kafetrain.client.ports import Committed, size_of
from kafetrain.core.chain import ChainKey, chain_key
from kafetrain.core.control import Control
from kafetrain.core.entry import Entry, State
from kafetrain.core.headers import RetryInfo
from kafetrain.core.ledger import Ledger
from kafetrain.core.lock_table import LockTable
from kafetrain.core.rules import to_park
from kafetrain.core.schedule import Held, RetrySchedule, SourcePlace
from kafetrain.record import Record, TopicPartition
from kafetrain.settings import Settings
from kafetrain.shared_ledger import SharedLedger
from kafetrain.tracker.state import Claim, TrackerState

if TYPE_CHECKING:
    from kafetrain.retry.controls import Controls
    from kafetrain.retry.orphans import OrphanCheck

__all__ = ["RetryPartition"]


class RetryPartition:
    """The loop's thread owns it; the schedule and the table are touched with the tracker's mutex held."""

    def __init__(
        self,
        place: TopicPartition,
        claim: Claim,
        table: LockTable,
        next_offset: int,
        state: TrackerState,
        settings: Settings,
    ) -> None:
        if claim.redirect is None:
            raise ValueError(f"{place} has no redirect partition")
        self.place, self.claim, self.redirect = place, claim, claim.redirect
        self.table, self._state = table, state
        self.ledger = Ledger(next_offset) if claim.path is None else SharedLedger(next_offset)
        self.committed = next_offset
        self.schedule = RetrySchedule(
            table,
            max_records=settings.max_held_records,
            max_bytes=settings.max_held_bytes,
            free_dead=settings.free_on_dlq,
        )
        self._waiting: list[tuple[int, int, Record, RetryInfo]] = []  # a heap by lock-offset
        self.controls: deque[tuple[Record, Control]] = deque()
        """What operators ask for a key, in its place in the order."""
        self.operator: Controls | None = None
        self.replaying = False
        """Dead letters are being put into retry again: there may be locks whose records are not read yet."""
        self._aside: dict[tuple[int, ChainKey], list[tuple[Record, RetryInfo]]] = {}
        """Keys that a control record works on, with what was read of them meanwhile."""
        self.open_work = 0
        """Handlers that run, and writes in flight."""
        self.open_writes = 0
        self.futures: set[Future[Any]] = set()
        """Of handlers that returned one."""
        self.leaving = False
        """Being given up: start nothing new."""
        self.full = False
        self.gone = False
        """It is not ours any more: nothing of it may be completed."""
        self.waits_for: tuple[int | None, float] = (None, 0.0)
        """The oldest lock that a record waits for, and since when (monotonic)."""
        self.orphans: OrphanCheck | None = None
        self.paused_until = float("-inf")
        """A handler asked for a pause (monotonic)."""
        with state.mutex:
            state.listeners[self.redirect] = self.schedule.touch
            state.relisteners[self.redirect] = self.schedule.touch_all
            self.schedule.touch_all()

    def leave(self) -> None:
        """Start nothing new; call off what waits for a future that has not begun."""
        self.leaving = True
        for future in tuple(self.futures):
            future.cancel()

    def close(self) -> None:
        """It is not ours any more."""
        self.leave()
        self.gone = True
        with self._state.mutex:
            if self._state.listeners.get(self.redirect) == self.schedule.touch:
                del self._state.listeners[self.redirect], self._state.relisteners[self.redirect]

    @property
    def idle(self) -> bool:
        """No handler of it runs, and no write is in flight."""
        return self.open_work == 0

    @property
    def writing(self) -> bool:
        """A write of it is in flight."""
        return self.open_writes > 0

    # What was read

    def wait_for_lock(self, record: Record, info: RetryInfo) -> None:
        """Admit it once the table has applied its lock."""
        heapq.heappush(self._waiting, (info.lock_offset, record.offset, record, info))

    def admit(self) -> None:
        """Hold what has waited for its lock and is pending; complete the rest. With the mutex held."""
        while self._waiting and self._waiting[0][0] < self.table.next_offset:
            _, _, record, info = heapq.heappop(self._waiting)
            chain = (info.id.partition, chain_key(record.key, info.id.offset))
            if info.control is not None:
                self.controls.append((record, info.control))
            elif (aside := self._aside.get(chain)) is not None:
                aside.append((record, info))
            elif not self._hold(record, info):
                self.ledger.complete(record.offset)

    def lay_aside(self, chain: tuple[int, ChainKey]) -> None:
        """Let nothing happen to this key until `take_back`."""
        self._aside.setdefault(chain, [])

    def take_back(self, chain: tuple[int, ChainKey]) -> None:
        """Go on with what was read of the key meanwhile. With the mutex held."""
        for record, info in self._aside.pop(chain, ()):
            self.wait_for_lock(record, info)
        self.schedule.touch(*chain)

    def _hold(self, record: Record, info: RetryInfo) -> bool:
        partition, offset = info.id.partition, info.id.offset
        locks = self.table.source(partition)
        locks.repair(offset, record.key, info.attempt, info.due_ms)
        if not locks.entries.has_pending(offset):
            return False  # it has ended
        if not self.schedule.hold(Held((partition, offset), record.offset, record, size_of(record), info)):
            return False  # a second copy
        self.schedule.touch(partition, chain_key(locks.entries.key(offset), offset))
        return True

    @property
    def waiting_count(self) -> int:
        return len(self._waiting) + sum(map(len, self._aside.values()))

    @property
    def oldest_lock_wanted(self) -> int | None:
        """The lowest lock-offset that a record waits for."""
        return self._waiting[0][0] if self._waiting else None

    def load(self, held: Held, record: Record) -> None:
        """Its payload was fetched again. With the mutex held."""
        if self.schedule.get(held.place) is held and held.record is None:
            self.schedule.load(held, record, size_of(record))

    def take_parks(self) -> list[Held]:
        """What is to be parked and still stands behind a dead head; the rest is put back. With the mutex held."""
        taken: list[Held] = []
        for held in tuple(self.schedule.to_park):
            locks, entry = self.table.source(held.place[0]), self.entry_of(held)
            key = None if entry is None else chain_key(entry.key, held.place[1])
            if key is not None and (held.place[0], key) in self._aside:
                held.busy = False  # its time comes with `take_back`
                continue
            chain = None if key is None else locks.chains.get(key)
            if chain is not None and to_park(locks, chain) == held.place[1]:
                taken.append(held)
            else:
                self.put_back(held)
        self.schedule.to_park.clear()
        return taken

    # What ended

    def entry_of(self, held: Held) -> Entry | None:
        """The present entry. With the mutex held."""
        return self.table.source(held.place[0]).entries.get(held.place[1])

    def drop(self, held: Held) -> None:
        """Its id has ended. With the mutex held."""
        self.schedule.drop(held)
        self.ledger.complete(held.at)

    def put_back(self, held: Held) -> None:
        """It did not end: it may run again when it is due. With the mutex held."""
        held.busy = False
        entry = self.entry_of(held)
        partition, offset = held.place
        if entry is None:
            self.drop(held)
        else:
            self.schedule.touch(partition, chain_key(entry.key, offset), offset)

    def complete_ended(self) -> None:
        """Complete the copies of ids that ended elsewhere. With the mutex held."""
        while self.schedule.ended:
            self.ledger.complete(self.schedule.ended.popleft().at)

    def to_commit(self) -> Committed | None:
        """None where nothing has moved since `committed`."""
        return Committed(self.ledger.next_offset) if self.ledger.next_offset > self.committed else None

    def position_with(self, completed: Collection[int]) -> Committed:
        """The position, were these offsets complete too; any thread, where writes are transactions."""
        return Committed(max(self.committed, self.ledger.next_offset_with(completed)))

    def open_places(self) -> Iterator[SourcePlace]:
        """Of every id that is open now. With the mutex held; what comes of it may be taken later, and without."""
        now = [(partition, tuple(locks.entries)) for partition, locks in self.table.sources.items()]
        return ((partition, offset) for partition, offsets in now for offset in offsets)

    def orphans_among(
        self, places: Iterable[SourcePlace], committed: Mapping[int, int]
    ) -> list[tuple[int, int, Entry]]:
        """Of these ids, the pending ones below the source's committed offsets that no record of the retry topic
        carries. With the mutex held."""
        waits = [info.id for _, _, _, info in self._waiting]
        waits += [info.id for records in self._aside.values() for _, info in records]
        waiting = {(id.partition, id.offset) for id in waits}
        found: list[tuple[int, int, Entry]] = []
        for place in places:
            partition, offset = place
            if offset < committed.get(partition, 0) and not self.schedule.holds(place) and place not in waiting:
                entry = self.table.source(partition).entries.get(offset)
                if entry is not None and entry.state is State.PENDING:
                    found.append((partition, offset, entry))
        return found
