"""The store: tasks, which of them are due, and who has them.

A claim is a lease. While it lasts nobody else is given the task; when it ends without `finish` or `renew`, as after a
kill, the task is due again. Every claim has a token, and what comes with an old token changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from kafetrain.errors import KafetrainError
from kafetrain.service.domain.task import State, Task

__all__ = ["Added", "Claim", "Claimed", "Filter", "Found", "Page", "StoreError", "TaskStore"]


class StoreError(KafetrainError):
    """The store cannot be reached or does not answer. Nothing is known of the call; every call may be repeated."""


class Added(Enum):
    CREATED = "created"
    SAME = "same"
    """A task of that id with the same content is there already; nothing was changed."""
    DIFFERENT = "different"
    """A task of that id with other content is there; nothing was changed."""


@dataclass(slots=True)
class Claim:
    task: Task
    token: str


@dataclass(frozen=True, slots=True)
class Claimed:
    claims: Sequence[Claim]
    next_due: float | None
    """When the next task or lease not claimed here is due; None: there is none."""


@dataclass(frozen=True, slots=True)
class Found:
    """A task as stored. `revision` changes with its progress."""

    task: Task
    revision: str
    is_claimed: bool


@dataclass(frozen=True, slots=True)
class Filter:
    """What all must hold for a task to be listed; `search` is a piece of its id."""

    state: State | None = None
    client_id: str | None = None
    source: str | None = None
    search: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Fewer tasks than asked for are not the end: a page looks at a bounded number of them. No cursor is."""

    tasks: Sequence[Task]
    cursor: str | None


class TaskStore(Protocol):
    """Called from one event loop. Every method raises `StoreError`."""

    async def open(self) -> None:
        """Connect, and make what is missing. Once, before all else."""

    async def close(self) -> None: ...

    def now(self) -> float:
        """Seconds since the epoch, by a clock that all users of the store share."""

    async def check(self) -> None:
        """Raise where a write could not be made now."""

    async def add(self, tasks: Sequence[Task]) -> list[Added]:
        """What became of each, in their order. As durable on return as the store can make it."""

    async def claim(self, limit: int, lease_s: float) -> Claimed:
        """Up to `limit` due tasks, fewer where they are large, the longest due first. Priority tasks get three
        quarters of that and what the others leave of theirs, and the other way round: neither waits for the other for
        ever."""

    async def renew(self, claims: Sequence[Claim], lease_s: float) -> None:
        """Let those that are still ours last `lease_s` from now."""

    async def finish(self, claims: Sequence[Claim]) -> None:
        """Write the progress of those that are still ours, and end their claims."""

    async def get(self, id: str) -> Found | None: ...

    async def put(self, task: Task, revision: str) -> bool:
        """Write its progress, if it is as it was found and nobody has claimed it; else False, and nothing changed."""

    async def delete(self, id: str) -> bool:
        """False: there is none. A delivery that is under way ends, and its `finish` changes nothing."""

    async def page(self, filter: Filter, limit: int, cursor: str | None = None) -> Page:
        """Tasks that match, without their messages; all of them, each once, over all pages, unless they change
        meanwhile. `ValueError`: a cursor that no page gave."""

    async def counts(self) -> Mapping[State, int]: ...

    async def purge(self, before: Mapping[State, float]) -> int:
        """Forget some tasks that have been in these final states since before then; how many. 0: no more are left."""

    async def add_counts(self, minute: int, counts: Mapping[str, int]) -> None:
        """Add to what happened in a minute (since the epoch)."""

    async def history(self, since_minute: int) -> Mapping[int, Mapping[str, int]]:
        """What happened, minute by minute; those of the last day are kept."""
