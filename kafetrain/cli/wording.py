"""How commands put things: spans of time, moments, counts, and texts that nobody vouches for."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kafetrain.outcome import Lock

__all__ = ["counted", "due_in", "error_line", "iso", "safe", "span"]


def counted(number: int, noun: str) -> str:
    """`1 record`, `2 records`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def iso(moment: datetime) -> str:
    """With milliseconds, for programs."""
    return moment.isoformat(timespec="milliseconds")


def span(seconds: float) -> str:
    """One unit, with about two digits."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    for unit, length, until in (("s", 1, 120), ("min", 60, 120 * 60), ("h", 3600, 48 * 3600)):
        if seconds < until:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def due_in(seconds: float) -> str:
    """When something runs that is due after so long."""
    return f"in {span(seconds)}" if seconds > 0 else "now"


def safe(text: str) -> str:
    """Nobody vouches for it: without control characters it cannot play with the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def error_line(lock: Lock) -> str:
    """The last error of a key, in one line; `-` where there is none."""
    if lock.error_type is None:
        return "-"
    line = next(iter((lock.error or "").strip().splitlines()), "")
    return safe(f"{lock.error_type}: {line}" if line else lock.error_type)
