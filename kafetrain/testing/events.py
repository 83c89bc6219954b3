"""What promises are checked against: what was written, what handlers did with it, and where a group stands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

__all__ = ["BrokenPromise", "Chain", "Event", "Kind", "Place", "Standing", "Written", "chain_of", "some"]

Place: TypeAlias = "tuple[int, int]"
"""Source partition and offset of a record."""

Chain: TypeAlias = "tuple[int, bytes | int]"
"""Source partition and key; a record without a key is a chain of its own, named by its offset."""

Kind = Literal["started", "ended", "failed", "abandoned", "interrupted"]


def chain_of(partition: int, offset: int, key: bytes | None) -> Chain:
    return (partition, offset if key is None else key)


class Written(NamedTuple):
    """A record that a test has written to its source topic."""

    partition: int
    offset: int
    key: bytes | None = None

    @property
    def place(self) -> Place:
        return (self.partition, self.offset)

    @property
    def chain(self) -> Chain:
        return chain_of(self.partition, self.offset, self.key)


class BrokenPromise(AssertionError):
    """A history that must not be. Its text names the records."""


@dataclass(frozen=True, slots=True)
class Event:
    """`started`, then one of: `ended` (success), `failed` (it counts), `abandoned` (no outcome: a pause, a stop).

    `interrupted` stands between records: an instance ended, or partitions changed hands. What it ran may run again.
    """

    kind: Kind
    key: bytes | None = None
    partition: int = -1
    offset: int = -1
    attempt: int = 0
    instance: str = ""
    time: float = 0.0
    group: str = ""
    """The consumer group that ran it, where the test says so."""
    retried_by: str = ""
    """The group whose retry it is, by the record's headers."""
    final: bool = False
    """Of a failure: known to have been the last, since the record is a dead letter."""

    @property
    def place(self) -> Place:
        return (self.partition, self.offset)

    @property
    def chain(self) -> Chain:
        return chain_of(self.partition, self.offset, self.key)

    def __str__(self) -> str:
        return f"{self.key!r} {self.partition}@{self.offset} (attempt {self.attempt})"


@dataclass(frozen=True)
class Standing:
    """Where one group stands with one source topic, by what is in its topics."""

    written: tuple[Written, ...] = ()
    dead_letters: Mapping[Place, str] = field(default_factory=dict)
    """Which records are in the dead-letter topic, and in which state."""
    locks: Mapping[Place, str] = field(default_factory=dict)
    """`pending` or `dead`."""
    uncommitted: Mapping[str, int] = field(default_factory=dict)
    """How far the committed offset is behind the end, by `topic[partition]`; none where it is not behind."""
    foreign_writes: tuple[str, ...] = ()
    """Records of this group's retries that an instance of another group has written."""


def some(places: Iterable[Place], limit: int = 10) -> str:
    """Places as text, the first of them by name."""
    places = sorted(places)
    shown = ", ".join(f"{partition}@{offset}" for partition, offset in places[:limit])
    return shown if len(places) <= limit else f"{shown} and {len(places) - limit} more"
