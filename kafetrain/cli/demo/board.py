"""The live view: a row for each customer, a sign for each order.

`render` is pure, a snapshot in and something for rich out; `LiveView` only shows it again and again. It fits the
terminal: customers in trouble first, then as many healthy ones as there is room for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from types import TracebackType

from rich.console import Console, Group, OverflowMethod, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kafetrain import Lock
from kafetrain.cli.demo.events import Kind
from kafetrain.cli.demo.progress import Line, OrderState, Progress, Status
from kafetrain.cli.demo.scenario import MAX_RETRIES, Customer

__all__ = ["LiveView", "Snapshot", "render"]

_SIGNS = {
    Status.WAITING: ("○", "o", "yellow"),
    Status.RUNNING: ("▶", ">", "bold cyan"),
    Status.FAILED: ("↻", "r", "bold yellow"),
    Status.SUCCEEDED: ("●", "*", "green"),
    Status.DEAD: ("✖", "X", "bold red"),
    Status.PARKED: ("◌", "p", "magenta"),
}
_KINDS = {
    Kind.FAILED: "yellow",
    Kind.STARTED: "cyan",
    Kind.SUCCEEDED: "green",
    Kind.DEAD_LETTERED: "bold red",
}
_FRAME_ROWS = 7
"""Lines around the customers and the log: title, phase, counts, table head, two gaps, and one that stays free."""
_MIN_LOG, _MAX_LOG = 3, 10
_FIXED_WIDTH = 8 + 2 + 3 * 2  # customer, partition, gaps


@dataclass(frozen=True)
class Snapshot:
    """What is shown. `locks`: by key."""

    where: str
    phase: str
    now_s: float
    now: datetime
    progress: Progress
    locks: Mapping[bytes | None, Lock]
    log: tuple[Line, ...] = ()


class LiveView:
    """Enter it to take the terminal; what is shown last stays there."""

    def __init__(self, console: Console, where: str) -> None:
        self._console, self._where = console, where
        self._log: deque[Line] = deque(maxlen=_MAX_LOG)
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> LiveView:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def show(self, phase: str, now_s: float, progress: Progress, lines: Iterable[Line], locks: Iterable[Lock]) -> None:
        self._log.extend(line for line in lines if line.kind is not Kind.PARKED)  # many, and the signs show them
        by_key = {lock.key: lock for lock in locks}
        now = datetime.now(timezone.utc)
        snapshot = Snapshot(self._where, phase, now_s, now, progress, by_key, tuple(self._log))
        size = self._console.size
        unicode = self._console.encoding.startswith("utf")
        self._live.update(render(snapshot, width=size.width, height=size.height, unicode=unicode), refresh=True)


def render(snapshot: Snapshot, *, width: int, height: int, unicode: bool = True) -> RenderableType:
    """In at most `height` lines, where that is possible at all."""
    customers = snapshot.progress.scenario.customers
    room = max(1, height - _FRAME_ROWS - _MIN_LOG)
    shown = customers if len(customers) <= room else customers[: room - 1]
    hidden = customers[len(shown) :]
    log_rows = max(_MIN_LOG, min(_MAX_LOG, height - _FRAME_ROWS - len(shown) - bool(hidden)))
    overflow: OverflowMethod = "ellipsis" if unicode else "crop"
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", width=width)
    now_width = min(52, max(24, (width - _FIXED_WIDTH) * 3 // 5))
    strip_width = max(10, width - _FIXED_WIDTH - now_width)
    columns = {"customer": 8, "p.": 2, "orders, one sign each": strip_width, "now": now_width}
    for heading, column_width in columns.items():
        table.add_column(heading, width=column_width, no_wrap=True, overflow=overflow)
    for customer in shown:
        states = snapshot.progress.of(customer)
        name = Text(customer.name, style="" if customer.healthy else "bold")
        table.add_row(
            name,
            Text(str(customer.partition), style="dim"),
            _strip(states, strip_width, unicode),
            _now(customer, states, snapshot),
        )
    if hidden:
        done = sum(state.status is Status.SUCCEEDED for customer in hidden for state in snapshot.progress.of(customer))
        text = Text(f"{done} orders succeeded", style="dim")
        table.add_row(Text(f"+{len(hidden)} more", style="dim"), "", text, "")
    lines: list[Text | Table] = [*_head(snapshot, unicode), Text(), table, Text(), *_log(snapshot, log_rows)]
    for line in lines:
        if isinstance(line, Text):
            line.no_wrap, line.overflow = True, overflow
    return Group(*lines)


def _head(snapshot: Snapshot, unicode: bool) -> list[Text]:
    """What is going on, and the numbers, which are the legend too."""
    progress = snapshot.progress
    title = Text.assemble(("kafetrain demo", "bold"), (f"  {snapshot.where}", "dim"))
    phase = Text.assemble((f"{snapshot.now_s:5.1f} s  ", "bold"), snapshot.phase)
    if progress.states:
        phase.append(f"  {len(progress.states)} of {len(progress.scenario.orders)} produced", style="dim")
    counts = Text("  ").join(
        Text.assemble((_sign(status, unicode), _SIGNS[status][2]), f" {progress.counts[status]} {_word(status)}")
        for status in Status
    )
    return [title, phase, counts]


def _strip(states: list[OrderState], width: int, unicode: bool) -> Text:
    """The signs of the last ones that there is room for."""
    text = Text()
    left_out = max(0, len(states) - width)
    for state in states[left_out + 1 if left_out else 0 :]:
        text.append(_sign(state.status, unicode), style=_SIGNS[state.status][2])
    if left_out:
        text = Text.assemble(("…" if unicode else "<", "dim"), text)
    return text


def _now(customer: Customer, states: list[OrderState], snapshot: Snapshot) -> Text:
    first = next((state for state in states if not state.status.ended or state.status is Status.DEAD), None)
    if first is None:
        recovered = next((state for state in states if state.runs > 1), None)
        if recovered is not None:
            return Text(f"fine: order {recovered.order.number} succeeded in run {recovered.runs}", style="green")
        return Text("fine" if states else "", style="dim")
    number = first.order.number
    behind = sum(state.status is Status.WAITING for state in states) - (first.status is Status.WAITING)
    waiting = f", {behind} behind it" if behind else ""
    if first.status is Status.DEAD:
        parked = sum(state.status is Status.PARKED for state in states)
        return Text(f"order {number} is dead, {parked} parked behind it", style="red")
    if first.status is Status.FAILED:
        lock = snapshot.locks.get(customer.key)
        due_s = None if lock is None else (lock.due - snapshot.now).total_seconds()
        when = "" if due_s is None else f" in {max(0.0, due_s):.1f} s"
        return Text(f"order {number}: run {first.runs + 1} of {MAX_RETRIES + 1}{when}{waiting}", style="yellow")
    if first.runs > 1:
        return Text(f"order {number}: run {first.runs} of {MAX_RETRIES + 1} now{waiting}", style="cyan")
    return Text(f"order {number} {'waits' if first.status is Status.WAITING else 'runs'}", style="dim")


def _log(snapshot: Snapshot, rows: int) -> list[Text]:
    lines = []
    for line in snapshot.log[-rows:]:
        name, style = f"{line.customer.name:<8}  ", _KINDS.get(line.kind, "")
        lines.append(Text.assemble((f"{line.at_s:5.1f} s  ", "dim"), (name, "bold"), (line.text, style)))
    return lines + [Text()] * (rows - len(lines))


def _sign(status: Status, unicode: bool) -> str:
    return _SIGNS[status][0 if unicode else 1]


def _word(status: Status) -> str:
    return status.value.partition(",")[0]
