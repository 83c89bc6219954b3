"""`kafetrain inspect`: how a group stands on a topic, once or live."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kafetrain.cli.changes import connect
from kafetrain.cli.shared import AsJson, Brokers, Group, Topic, print_json, settings_for
from kafetrain.cli.wording import iso

if TYPE_CHECKING:
    from rich.console import Console

    from kafetrain.operations.figures import Figures, Offsets, PartitionFigures
    from kafetrain.operations.inspector import Inspector
    from kafetrain.outcome import Lock

__all__ = ["inspect"]

_WIDE = 160
"""Columns where stdout is no terminal, and so has no width of its own."""
_LISTED = 100
"""Keys of a kind in JSON. `kafetrain locks` lists all."""


def inspect(
    topic: Topic,
    once: Annotated[bool, typer.Option("--once", help="Print once, and end.")] = False,
    interval: Annotated[str, typer.Option("--interval", help="How often to look: 500ms, 2s.")] = "1s",
    brokers: Brokers = None,
    group: Group = None,
    as_json: AsJson = False,
) -> None:
    """Watch a group: lag, what waits and since when, which keys are due, which are dead. Ctrl-C ends it.

    It joins no group and changes nothing. Without a terminal, and with --json, it prints once.
    """
    from rich.console import Console

    from kafetrain.cli.inspect_view import render
    from kafetrain.operations.inspector import Inspector

    every = _every(interval)
    settings = settings_for(brokers, group)
    console = Console(highlight=False)
    with Inspector(connect(settings), settings, topic) as inspector:
        if as_json:
            print_json(_as_json(inspector.look()))
        elif once or not console.is_terminal or console.is_dumb_terminal:
            wide = console if console.is_terminal else Console(highlight=False, width=_WIDE)
            wide.print(render(inspector.look()))
        else:
            try:
                _live(inspector, console, every, time.sleep)
            except KeyboardInterrupt:  # how one ends it
                sys.stdout.flush()


def _every(text: str) -> timedelta:
    from kafetrain.durations import parse_duration

    try:
        every = parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(f"--interval is a duration such as 2s, not {text!r}: {error}") from None
    if every < timedelta(milliseconds=100):
        raise typer.BadParameter(f"--interval must be at least 100ms, not {text!r}")
    return every


def _live(inspector: Inspector, console: Console, every: timedelta, wait: Callable[[float], None]) -> None:
    """Until interrupted. While the cluster does not answer, what was seen last stays, and says so."""
    from rich.live import Live

    from kafetrain.cli.inspect_view import render
    from kafetrain.client.ports import ClientError
    from kafetrain.errors import first_line

    figures, note = inspector.look(), ""
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(render(figures, height=console.size.height, note=note), refresh=True)
            wait(every.total_seconds())
            try:
                figures, note = inspector.look(), ""
            except ClientError as error:
                if not error.retriable:
                    raise
                note = f"no answer: {first_line(error)}"


def _as_json(figures: Figures) -> dict[str, Any]:
    from kafetrain.operations.figures import total_of

    total = _row_as_json(total_of(figures.partitions), figures.at)
    return {
        "topic": figures.topic,
        "group": figures.group,
        "at": iso(figures.at),
        "members": figures.members,
        "retry_members": figures.retry_members,
        "partitions": [
            {
                "partition": row.partition,
                **_offsets_as_json("", row.source),
                **_offsets_as_json("retry_", row.retry),
                **_row_as_json(row, figures.at),
            }
            for row in figures.partitions
        ],
        "total": total,
        "due_keys": len(figures.due),
        "due": [_lock_as_json(lock) for lock in figures.due[:_LISTED]],
        "dead": [_lock_as_json(lock) for lock in figures.dead[:_LISTED]],
    }


def _offsets_as_json(prefix: str, offsets: Offsets | None) -> dict[str, Any]:
    return {
        f"{prefix}end": offsets and offsets.end,
        f"{prefix}committed": offsets and offsets.committed,
    }


def _row_as_json(row: PartitionFigures, at: datetime) -> dict[str, Any]:
    return {
        "lag": row.source and row.source.lag,
        "retry_lag": row.retry and row.retry.lag,
        "pending_keys": row.pending_keys,
        "pending_records": row.pending_records,
        "oldest_pending_seconds": row.oldest_failure and round((at - row.oldest_failure).total_seconds(), 3),
        "next_due": row.next_due and iso(row.next_due),
        "dead_keys": row.dead_keys,
    }


def _lock_as_json(lock: Lock) -> dict[str, Any]:
    from kafetrain.deadletter.key_text import key_text

    return {
        "partition": lock.partition,
        "key": key_text(lock.key),
        "head": lock.head,
        "pending": lock.pending,
        "attempt": lock.attempt,
        "due": iso(lock.due),
        "first_failure": lock.first_failure and iso(lock.first_failure),
        "error_type": lock.error_type,
        "error": lock.error,
    }
