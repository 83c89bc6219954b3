"""`kafetrain locks`: which keys of a topic are in retry, or dead.

It only looks: it reads the redirect topic from its beginning to its end, without a group, and creates nothing. So it
shows every partition, whoever works on it, as of the moment of the call.
"""

from __future__ import annotations

import base64
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import typer

from kafetrain.cli.shared import AsJson, Brokers, Group, Topic, print_json, settings_for

if TYPE_CHECKING:
    from kafetrain.client.ports import Client
    from kafetrain.outcome import Lock
    from kafetrain.settings import Settings

__all__ = ["connect", "locks"]

_BASE64 = "base64:"
_WIDE = 160
"""Columns where stdout is no terminal, and so has no width of its own."""


def locks(topic: Topic, brokers: Brokers = None, group: Group = None, as_json: AsJson = False) -> None:
    """List the keys that are in retry or dead: what runs next of each, when, and what failed last.

    In JSON a key is its text where it is printable UTF-8, else `base64:` and its bytes; null: the record has no key.
    """
    from kafetrain.cli.read_locks import read_locks

    settings = settings_for(brokers, group)
    found = read_locks(connect(settings), settings, topic)
    now = datetime.now(timezone.utc)
    if not found:
        typer.echo(f"group {settings.group_id} has no key of {topic} in retry", err=True)
    if as_json:
        print_json([_as_json(lock, now) for lock in found])
    elif found:
        _print_table(found, now)


def connect(settings: Settings) -> Client:
    from kafetrain.client.kafka_python import KafkaPythonClient

    return KafkaPythonClient(settings)


def key_text(key: bytes | None) -> str | None:
    """Unambiguous: a key that itself begins with `base64:` is encoded too."""
    if key is None:
        return None
    try:
        text = key.decode()
    except UnicodeDecodeError:
        text = _BASE64
    if text.isprintable() and not text.startswith(_BASE64):
        return text
    return _BASE64 + base64.b64encode(key).decode()


def _as_json(lock: Lock, now: datetime) -> dict[str, Any]:
    return {
        "topic": lock.topic,
        "partition": lock.partition,
        "key": key_text(lock.key),
        "state": lock.state,
        "head": lock.head,
        "pending": lock.pending,
        "attempt": lock.attempt,
        "due": lock.due.isoformat(timespec="milliseconds"),
        "first_failure": lock.first_failure and lock.first_failure.isoformat(timespec="milliseconds"),
        "age_seconds": lock.first_failure and round((now - lock.first_failure).total_seconds(), 3),
        "error_type": lock.error_type,
        "error": lock.error,
    }


def _print_table(found: list[Lock], now: datetime) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDE)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("key", overflow="fold")
    for name in ("partition", "state", "pending", "attempt", "due", "age"):
        table.add_column(name, no_wrap=True, justify="right" if name in ("partition", "pending", "attempt") else "left")
    table.add_column("last error", overflow="fold")
    for lock in found:
        key = key_text(lock.key)
        is_dead = lock.state == "dead"
        age_s = None if lock.first_failure is None else (now - lock.first_failure).total_seconds()
        table.add_row(
            Text("(none)", style="dim") if key is None else Text(key),
            str(lock.partition),
            Text(lock.state, style="red" if is_dead else "yellow"),
            str(lock.pending),
            str(lock.attempt),
            "-" if is_dead else _due((lock.due - now).total_seconds()),
            "-" if age_s is None else _span(age_s),
            Text(_error(lock)),
        )
    console.print(table)


def _due(seconds: float) -> str:
    return f"in {_span(seconds)}" if seconds > 0 else "now"


def _span(seconds: float) -> str:
    """One unit, with about two digits."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    for unit, length, until in (("s", 1, 120), ("min", 60, 120 * 60), ("h", 3600, 48 * 3600)):
        if seconds < until:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def _error(lock: Lock) -> str:
    if lock.error_type is None:
        return "-"
    line = next(iter((lock.error or "").strip().splitlines()), "")
    text = f"{lock.error_type}: {line}" if line else lock.error_type
    # Nobody vouches for it: without control characters it cannot play with the terminal.
    return "".join(char if char.isprintable() else "?" for char in text)
