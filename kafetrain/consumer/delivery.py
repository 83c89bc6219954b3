"""How a middleware tells the loop that a record is not complete yet, though the handler has returned.

The worker that runs a record keeps a slot for it. `hold_back` leaves a future there, and the record waits for that, and
the next of its key too if it has to. So redirects share their round trips instead of each blocking a thread.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

__all__ = ["Slot", "current_slot", "hold_back"]


class Slot:
    """Of one worker thread: what the record that it runs waits for, and whether the next of its key does too."""

    __slots__ = ("future", "key_waits")

    def __init__(self) -> None:
        self.future: Future[Any] | None = None
        self.key_waits = True


_threads = threading.local()


def current_slot() -> Slot:
    """This worker thread's slot; it has one from now on."""
    slot: Slot | None = getattr(_threads, "slot", None)
    if slot is None:
        slot = _threads.slot = Slot()
    return slot


def hold_back(future: Future[Any], *, key_waits: bool = True) -> None:
    """The record that this thread runs is complete when `future` is. Outside of a worker: wait for it here.

    `key_waits`: the next of its key may not run before that.
    """
    slot: Slot | None = getattr(_threads, "slot", None)
    if slot is None:
        future.result()
    else:
        slot.future, slot.key_waits = future, key_waits
