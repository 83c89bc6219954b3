"""`kafetrain locks`: which keys of a topic are in retry, or dead.

It only looks: it reads the redirect topic from its beginning to its end, without a group, and creates nothing. So it
shows every partition, whoever works on it, as of the moment of the call.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kafetrain.cli.changes import connect
from kafetrain.cli.progress import progress_bar
from kafetrain.cli.shared import AsJson, Brokers, Group, Topic, print_json, settings_for
from kafetrain.cli.wording import due_in, error_line, iso, safe, span
from kafetrain.errors import ConfigurationError

if TYPE_CHECKING:
    from kafetrain.deadletter import KeyEvent
    from kafetrain.outcome import Lock
    from kafetrain.settings import Settings

__all__ = ["locks"]

_WIDE = 160
"""Columns where stdout is no terminal, and so has no width of its own."""


def locks(
    topic: Topic,
    dead: Annotated[bool, typer.Option("--dead", help="Only dead keys.")] = False,
    pending: Annotated[bool, typer.Option("--pending", help="Only keys in retry.")] = False,
    older_than: Annotated[
        str | None, typer.Option("--older-than", help="Only keys whose first failure is so long ago: 1h.")
    ] = None,
    history: Annotated[
        str | None, typer.Option("--history", metavar="KEY", help="The story of this key instead, from the topics.")
    ] = None,
    brokers: Brokers = None,
    group: Group = None,
    as_json: AsJson = False,
) -> None:
    """List the keys that are in retry or dead: what runs next of each, when, and what failed last.

    In JSON a key is its text where it is printable UTF-8, else `base64:` and its bytes; null: the record has no key.
    """
    from kafetrain.deadletter.lock_view import read_locks

    if dead and pending:
        raise ConfigurationError("--dead and --pending leave nothing together: one of them")
    if history is not None and (dead or pending or older_than):
        raise ConfigurationError("--history is for one key, whatever its state: it goes with no filter")
    age = _age(older_than)
    settings = settings_for(brokers, group)
    if history is not None:
        _history(settings, topic, history, as_json)
        return
    found = read_locks(connect(settings), settings, topic)
    now = datetime.now(timezone.utc)
    takes = _taker(dead, pending, None if age is None else now - age)
    shown = [lock for lock in found if takes(lock)]
    if not found:
        typer.echo(f"group {settings.group_id} has no key of {topic} in retry", err=True)
    elif not shown:
        typer.echo(f"none of the {len(found)} keys of {topic} in retry or dead is like that", err=True)
    if as_json:
        print_json([_as_json(lock, now) for lock in shown])
    elif shown:
        _print_table(shown, now)


def _age(text: str | None) -> timedelta | None:
    from kafetrain.durations import parse_duration

    try:
        return None if text is None else parse_duration(text)
    except ValueError as error:
        raise ConfigurationError(f"--older-than is a duration such as 1h, not {text!r}: {error}") from None


def _taker(dead: bool, pending: bool, failed_before: datetime | None) -> Callable[[Lock], bool]:
    def takes(lock: Lock) -> bool:
        if (dead and lock.state != "dead") or (pending and lock.state != "pending"):
            return False
        return failed_before is None or (lock.first_failure is not None and lock.first_failure <= failed_before)

    return takes


def _history(settings: Settings, topic: str, key: str, as_json: bool) -> None:
    from kafetrain.deadletter import DeadLetters, parse_key

    meant = parse_key(key)
    with DeadLetters(settings, topic, connect(settings)) as letters, progress_bar("reading the topics") as progress:
        events = letters.history(meant, progress=progress)
    if not events:
        typer.echo(f"the topics of {topic} hold nothing of key {key} for group {settings.group_id}", err=True)
    if as_json:
        print_json([_event_as_json(event) for event in events])
        return
    for event in events:
        text = safe(event.text)
        typer.echo(f"{event.at:%Y-%m-%dT%H:%M:%S.%f}"[:-3] + f"Z  {event.kind:<11}  {event.id}  {text}")


def _event_as_json(event: KeyEvent) -> dict[str, Any]:
    return {
        "time": iso(event.at),
        "kind": event.kind,
        "id": str(event.id),
        "topic": event.topic,
        "partition": event.partition,
        "offset": event.offset,
        "text": event.text,
        "command": event.command,
        "by": event.by,
        "why": event.why,
    }


def _as_json(lock: Lock, now: datetime) -> dict[str, Any]:
    from kafetrain.deadletter import key_text

    return {
        "topic": lock.topic,
        "partition": lock.partition,
        "key": key_text(lock.key),
        "state": lock.state,
        "head": lock.head,
        "pending": lock.pending,
        "attempt": lock.attempt,
        "due": iso(lock.due),
        "first_failure": lock.first_failure and iso(lock.first_failure),
        "age_seconds": lock.first_failure and round((now - lock.first_failure).total_seconds(), 3),
        "error_type": lock.error_type,
        "error": lock.error,
    }


def _print_table(found: list[Lock], now: datetime) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from kafetrain.deadletter import key_text

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
            "-" if is_dead else due_in((lock.due - now).total_seconds()),
            "-" if age_s is None else span(age_s),
            Text(error_line(lock)),
        )
    console.print(table)
