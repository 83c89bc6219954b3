"""What waits of each key, and which keys a worker may take."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TypeAlias

from kafetrain.core.chain import ChainKey
from kafetrain.record import Record

__all__ = ["KeyQueues", "Taken"]

Taken: TypeAlias = "tuple[ChainKey, Sequence[Record]]"


class KeyQueues:
    """A key that is in here is ready, or taken by one worker, or held by a record that is not complete.

    Not thread-safe: the partition's mutex guards it.
    """

    def __init__(self) -> None:
        self.waiting: dict[ChainKey, list[Record]] = {}
        """What waits of each key in here, in offset order. Whether there is any, one may ask without the mutex."""
        self._ready: deque[ChainKey] = deque()

    @property
    def has_ready(self) -> bool:
        return bool(self._ready)

    def add(self, records: Sequence[Record]) -> None:
        """Behind what waits of their keys; keys that are new become ready, in this order."""
        waiting, ready = self.waiting, self._ready
        for record in records:
            key = record.offset if record.key is None else record.key
            if (queue := waiting.get(key)) is None:
                waiting[key] = [record]
                ready.append(key)
            else:
                queue.append(record)

    def add_behind(self, record: Record) -> bool:
        """Only if its key is in here. Was it?"""
        queue = self.waiting.get(record.offset if record.key is None else record.key)
        if queue is None:
            return False
        queue.append(record)
        return True

    def take(self) -> Taken | None:
        """The key that has been ready for longest, with all that waits of it."""
        if not self._ready:
            return None
        key = self._ready.popleft()
        records, self.waiting[key] = self.waiting[key], []
        return key, records

    def hold(self, key: ChainKey, records: Sequence[Record] = ()) -> None:
        """Taken, or new: from now on it is held, and these of it wait first."""
        self.waiting.setdefault(key, [])[:0] = records

    def give_back(self, key: ChainKey, records: Sequence[Record] = ()) -> None:
        """Taken, or held: with these first it is ready, behind all others; where nothing waits of it, it is gone."""
        queue = self.waiting[key]
        queue[:0] = records
        if queue:
            self._ready.append(key)
        else:
            del self.waiting[key]
