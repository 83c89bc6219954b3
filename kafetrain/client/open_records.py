"""The account of the records that a producer has under way, so that it takes no more than fits in memory.

kafka-python has no bound at all, and that of librdkafka refuses at once where `send` is to wait.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from datetime import timedelta
from typing import Any, Generic, TypeVar

from kafetrain.client.ports import ClientError, OutgoingRecord, size_of
from kafetrain.futures import LightFuture

__all__ = ["OpenRecord", "OpenRecords"]

MAX_RECORDS = 20_000
MAX_BYTES = 64 * 1024 * 1024
"""Of keys, values and headers. A larger record goes when it is alone."""


class OpenRecord(LightFuture[int]):
    """A record under way: the future of its offset. `owner`: whom the library's word of it is for."""

    number = 0

    def __init__(self, record: OutgoingRecord, owner: Any) -> None:
        super().__init__()
        self.topic, self.partition, self._owner = record.topic, record.partition, owner
        self.size_bytes = size_of(record)

    def __str__(self) -> str:
        return f"sending to {self.topic}[{self.partition}]"

    def appended(self, offset: int | None) -> None:
        if offset is not None and offset >= 0:
            self.set_result(offset)
        else:  # a repeated batch whose first copy the broker knows, but no longer where it is
            self.set_exception(ClientError(f"{self}: appended, but nobody tells at which offset", retriable=True))


One = TypeVar("One", bound=OpenRecord)


class OpenRecords(Generic[One]):
    """Any thread. `changed` guards everything here, and what its producer keeps beside it. Never held while a library
    is called: its thread wants it, to end records."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self.changed = threading.Condition(self._mutex)
        self._open: OrderedDict[int, One] = OrderedDict()  # in the order of the calls
        self._bytes = 0
        self._last_number = 0
        self.is_closed = False

    def add(self, one: One, give_up_at: float) -> None:
        """Waits for room until `give_up_at` (monotonic). `ClientError`: there is none, or it is closed."""
        with self._mutex:
            if self.is_closed or not self._fits(one.size_bytes):
                self._wait_for_room(one, give_up_at)
            one.number = self._last_number = self._last_number + 1
            self._open[one.number] = one
            self._bytes += one.size_bytes

    def remove(self, one: One) -> bool:
        """It has ended. False: it had ended before."""
        with self._mutex:
            if self._open.pop(one.number, None) is None:
                return False
            self._bytes -= one.size_bytes
            self.changed.notify_all()
        return True

    def flush(self, timeout: timedelta) -> None:
        """Wait for what was added before."""
        with self.changed:
            last = self._last_number
            self.changed.wait_for(lambda: next(iter(self._open), last + 1) > last, timeout.total_seconds())

    def close(self, timeout: timedelta) -> bool:
        """Add nothing more, and wait for what was added. False: it was closed before."""
        with self.changed:
            if self.is_closed:
                return False
            self.is_closed = True
            self.changed.notify_all()
            self.changed.wait_for(lambda: not self._open, timeout.total_seconds())
        return True

    def left(self) -> list[One]:
        """In the order of the calls."""
        with self._mutex:
            return list(self._open.values())

    def first(self) -> One | None:
        """The one that was added first. With `changed` held."""
        return next(iter(self._open.values()), None)

    def _fits(self, size: int) -> bool:
        if not self._open:
            return True
        return len(self._open) < MAX_RECORDS and self._bytes + size <= MAX_BYTES

    def _wait_for_room(self, one: One, give_up_at: float) -> None:
        size, wait = one.size_bytes, max(0.0, give_up_at - time.monotonic())
        has_room = self.changed.wait_for(lambda: self.is_closed or self._fits(size), wait)
        if self.is_closed:
            raise ClientError(f"{one}: the producer is closed")
        if not has_room:
            why = f"{len(self._open)} records of {self._bytes} bytes are not acknowledged yet"
            raise ClientError(f"{one}: {why}", retriable=True)
