"""What happened to the orders, as it happened. The board and the verdict are both computed from these events."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

__all__ = ["Event", "Kind", "Recorder"]


class Kind(Enum):
    PRODUCED = "produced"
    STARTED = "started"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DEAD_LETTERED = "dead-lettered"
    PARKED = "parked"


@dataclass(frozen=True, slots=True)
class Event:
    """`at_s`: seconds since the beginning. `order`: its number. `detail`: of a failure or a dead letter."""

    at_s: float
    kind: Kind
    order: int
    detail: str = ""


class Recorder:
    """The events in the order in which they happened. Any thread."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._mutex = threading.Lock()  # guards what follows; nothing is called inside but the clock
        self._events: list[Event] = []
        self._began = monotonic()

    def begin(self) -> None:
        """Time is counted from now on."""
        with self._mutex:
            self._began = self._monotonic()

    @property
    def now_s(self) -> float:
        return self._monotonic() - self._began

    def record(self, kind: Kind, order: int, detail: str = "") -> None:
        # The time is taken inside: by it and by their place the events have the same order.
        with self._mutex:
            self._events.append(Event(self.now_s, kind, order, detail))

    def since(self, count: int) -> list[Event]:
        """All events but the first `count`."""
        with self._mutex:
            return self._events[count:]
