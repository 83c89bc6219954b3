"""What a command is about to do, and what came of it. Pure data: a plan may be shown, counted, or thrown away."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from kafetrain.core.control import Action
from kafetrain.deadletter.letter import DeadLetter
from kafetrain.record import MessageId

__all__ = ["Change", "Effect", "Plan", "Result", "Target"]


@dataclass(frozen=True, slots=True)
class Target:
    """One control record to be written."""

    action: Action
    id: MessageId
    """The head of the key; for `append` the dead letter's own id."""
    key: bytes | None
    lock_offset: int
    attempt: int = 0
    letters: tuple[DeadLetter, ...] = ()
    """What runs again, in order. Without payloads, unless a transform needs them."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done, from one look at the topics. Carrying it out late does no harm: each control record acts
    only while its key is as it was seen."""

    action: Action
    topic: str
    targets: tuple[Target, ...]
    nothing: tuple[str, ...] = ()
    """Sentences: what was asked for, and why there is nothing to do for it."""

    @property
    def records(self) -> int:
        """How many records run again."""
        return sum(len(target.letters) for target in self.targets)

    @property
    def appended(self) -> int:
        """How many of them run behind what their key has done since: their order is not the source's."""
        return sum(target.action is Action.APPEND for target in self.targets)


class Effect(str, Enum):
    """What has become of a control record."""

    DONE = "done"
    """The retry consumer has obeyed it."""
    WRITTEN = "written"
    """It is durable, and nobody waited for more."""
    LATER = "later"
    """It is durable, and will be obeyed when a consumer of the group starts: none runs."""
    LATE = "late"
    """It is durable, and was not obeyed in time. It stays in the log and will be."""


@dataclass(frozen=True, slots=True)
class Change:
    """One target, and what has become of it."""

    target: Target
    effect: Effect


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a plan."""

    plan: Plan
    command: str
    """The command's id: its control records carry it."""
    changes: tuple[Change, ...]

    def count(self, effect: Effect) -> int:
        return sum(change.effect is effect for change in self.changes)
