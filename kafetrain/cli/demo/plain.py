"""The plain view: a line for each event worth telling, and one a second for all the others."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType

import typer

from kafetrain import Lock
from kafetrain.cli.demo.progress import Line, Progress, Status

__all__ = ["PlainView"]

EVERY_S = 1.0


class PlainView:
    """Writes to stdout."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._phase = ""
        self._next_s = 0.0

    def __enter__(self) -> PlainView:
        typer.echo(f"kafetrain demo on {self._where}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, phase: str, now_s: float, progress: Progress, lines: Iterable[Line], locks: Iterable[Lock]) -> None:
        for line in lines:
            typer.echo(f"{line.at_s:7.3f}  {line.customer.name:<8}  {line.text}")
        if phase != self._phase:
            self._phase, self._next_s = phase, now_s + EVERY_S
            typer.echo(f"{now_s:7.3f}  {phase}")
        if now_s >= self._next_s:
            self._next_s = now_s + EVERY_S
            numbers = ", ".join(f"{progress.counts[s]} {s.value.partition(',')[0]}" for s in Status)
            typer.echo(f"{now_s:7.3f}  {len(progress.states)} of {len(progress.scenario.orders)} produced: {numbers}")
