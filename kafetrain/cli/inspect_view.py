"""How `kafetrain inspect` shows a group. Pure: figures in, something for rich out, in as many lines as there are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kafetrain.cli.wording import due_in, error_line, span
from kafetrain.deadletter.key_text import key_text
from kafetrain.operations.figures import Figures, Offsets, PartitionFigures, total_of
from kafetrain.outcome import Lock

__all__ = ["render"]

_FRAME_ROWS = 9
"""Title, three gaps, the table's head and total, two headings, and one that stays free."""
_MIN_LISTED = 2


def render(figures: Figures, *, height: int | None = None, note: str = "") -> RenderableType:
    """In at most `height` lines, where that is possible at all; None: without a bound on partitions.

    `note`: shown beside the title, as why these figures are old.
    """
    title = Text.assemble(
        (f"{figures.topic}", "bold"),
        f"  group {figures.group}, ",
        _members(figures.members),
        "; retries: ",
        _members(figures.retry_members),
        (f"  {figures.at.astimezone():%H:%M:%S}", "dim"),
        (f"  {note}" if note else "", "red"),
        no_wrap=True,
        overflow="ellipsis",
    )
    room = None if height is None else max(2 * _MIN_LISTED + 1, height - _FRAME_ROWS)
    shown = _rows(figures.partitions, room)
    taken = min(len(figures.partitions), len(shown) + 1)
    listed = 10 if room is None else max(_MIN_LISTED, (room - taken) // 2)
    parts: list[RenderableType] = [title, Text(), _partitions(figures, shown)]
    if figures.due:
        parts += [Text(), _locks(figures.due, listed, figures.at, "due now or running", is_dead=False)]
    if figures.dead:
        parts += [Text(), _locks(figures.dead, listed, figures.at, "dead", is_dead=True)]
    return Group(*parts)


def _members(count: int) -> Text:
    return Text(f"{count} member{'' if count == 1 else 's'}", style="" if count else "red")


def _rows(rows: Sequence[PartitionFigures], room: int | None) -> Sequence[PartitionFigures]:
    """Those that there is room for: in trouble first, then behind first; in the order of their numbers."""
    if room is None or len(rows) <= room - 2 * _MIN_LISTED:
        return rows
    order = sorted(rows, key=lambda row: (-row.dead_keys, -row.pending_records, -_lag_of(row.source)))
    return sorted(order[: max(1, room - 2 * _MIN_LISTED - 1)], key=lambda row: row.partition)


def _partitions(figures: Figures, shown: Sequence[PartitionFigures]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for name in (
        "partition", "end", "committed", "lag", "retry lag", "keys in retry", "records", "oldest", "next", "dead keys"
    ):  # fmt: skip
        table.add_column(name, justify="right", no_wrap=True)
    for row in shown:
        table.add_row(
            str(row.partition),
            "-" if row.source is None else str(row.source.end),
            "-" if row.source is None or row.source.committed is None else str(row.source.committed),
            *_figures(row, figures.at),
        )
    if hidden := len(figures.partitions) - len(shown):
        table.add_row(Text(f"+{hidden} more", style="dim"))
    if len(figures.partitions) > 1:
        table.add_row(Text("all", style="bold"), "", "", *_figures(total_of(figures.partitions), figures.at))
    return table


def _figures(row: PartitionFigures, at: datetime) -> list[Text]:
    return [
        _number(_lag_of(row.source), "", none=row.source is None),
        _number(_lag_of(row.retry), "", none=row.retry is None),
        _number(row.pending_keys, "yellow"),
        _number(row.pending_records, "yellow"),
        Text("-" if row.oldest_failure is None else span((at - row.oldest_failure).total_seconds())),
        Text("-" if row.next_due is None else due_in((row.next_due - at).total_seconds())),
        _number(row.dead_keys, "bold red"),
    ]


def _lag_of(offsets: Offsets | None) -> int:
    return 0 if offsets is None else offsets.lag


def _number(count: int, style: str, *, none: bool = False) -> Text:
    return Text("-" if none else str(count), style=style if count else "dim")


def _locks(locks: Sequence[Lock], room: int, at: datetime, heading: str, *, is_dead: bool) -> Table:
    style = "red" if is_dead else "yellow"
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column(f"{heading}: {len(locks)}", style=style, max_width=40, no_wrap=True, overflow="ellipsis")
    for name in ("partition", "behind it", "attempt", "age"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("last error", no_wrap=True, overflow="ellipsis")
    shown = locks if len(locks) <= room else locks[: max(1, room - 1)]
    for lock in shown:
        age = None if lock.first_failure is None else (at - lock.first_failure).total_seconds()
        table.add_row(
            key_text(lock.key) or Text("(none)", style="dim"),
            str(lock.partition),
            str(lock.pending if is_dead else lock.pending - 1),
            str(lock.attempt),
            "-" if age is None else span(age),
            Text(error_line(lock)),
        )
    if hidden := len(locks) - len(shown):
        table.add_row(Text(f"+{hidden} more", style="dim"))
    return table
