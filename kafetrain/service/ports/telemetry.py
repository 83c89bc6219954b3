"""What the service tells of itself while it works."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from kafetrain.service.domain.task import Attempt, Task

__all__ = ["Telemetry"]


class Telemetry(Protocol):
    """Called from the event loop, for every task: nothing here may wait."""

    def created(self, count: int) -> None: ...

    def begins(self, task: Task, late_s: float) -> None:
        """A delivery begins, this long after it was due."""

    def ended(self, task: Task, attempt: Attempt) -> None:
        """A delivery has ended, and the task's progress tells how."""

    def span(self, name: str, trace: str | None, **attributes: str | int) -> AbstractContextManager[str | None]:
        """A span, below `trace` if that is given; gives the `traceparent` for what belongs below it."""
