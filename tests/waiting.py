"""Waiting for a condition. No test waits for a time to pass, and a wait that fails says what did not happen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["wait_for"]

T = TypeVar("T")

LOOK_EVERY_S = 0.01


def wait_for(
    description: str,
    condition: Callable[[], T | None],
    timeout: float = 60.0,
    *,
    check: Callable[[], object] | None = None,
) -> T:
    """Wait until `condition` gives something true, and return that. Its errors pass through.

    `description`: what is waited for, as a sentence's end: "m3 has succeeded". `timeout`: seconds. `check`: called
    before each look; raises where waiting has become pointless, as `check` of a consumer does.
    """
    never = threading.Event()
    give_up_at = time.monotonic() + timeout
    while True:
        if check is not None:
            check()
        if found := condition():
            return found
        if time.monotonic() > give_up_at:
            raise AssertionError(f"not within {timeout:g} s: {description} (the last look gave {found!r})")
        never.wait(LOOK_EVERY_S)
