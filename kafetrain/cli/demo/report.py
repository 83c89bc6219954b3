"""The verdict on the screen."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kafetrain.cli.demo.verdict import Check, Verdict

__all__ = ["print_verdict"]

_MOST_FINDINGS = 10


def print_verdict(verdict: Verdict, console: Console) -> None:
    """Each promise with what was looked at, what broke it if something did, and how long orders waited."""
    console.print()
    for check in verdict.checks:
        _print_check(check, console)
    console.print()
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("  from produced to the start of the last run")
    table.add_column("median", justify="right")
    table.add_column("p99", justify="right")
    for waits, name in ((verdict.healthy, "healthy"), (verdict.failing, "failing")):
        style = "green" if waits is verdict.healthy else "yellow"
        median, p99 = (Text(_duration(value), style=style) for value in (waits.median_s, waits.p99_s))
        table.add_row(f"  {waits.customers} {name} customers", median, p99)
    console.print(table)
    console.print()
    word = Text("good", style="bold green") if verdict.good else Text("bad", style="bold red")
    console.print(Text.assemble(("verdict: ", "bold"), word))


def _print_check(check: Check, console: Console) -> None:
    mark = Text("kept  ", style="bold green") if check.kept else Text("BROKEN", style="bold red")
    text = Text.assemble("  ", mark, f"  {check.promise:<24}  ", (check.summary, "dim"))
    console.print(text, soft_wrap=True)
    for finding in check.findings[:_MOST_FINDINGS]:
        console.print(Text(f"          {finding}", style="red"), soft_wrap=True)
    if (more := len(check.findings) - _MOST_FINDINGS) > 0:
        console.print(Text(f"          and {more} more", style="red"))


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
