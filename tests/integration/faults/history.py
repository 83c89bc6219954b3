"""What all processes of a scenario did, in the order in which they did it, and what must hold of it.

The file's order is the order of the events: each line is written before the handler goes on.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tests.integration.journal import BrokenPromise, Place

__all__ = ["BrokenPromise", "Chain", "Event", "History", "HistoryReader", "Place", "Span"]

Span = tuple[float, float]
Chain = tuple[int, str]
"""A partition and a key."""


@dataclass(frozen=True, slots=True)
class Event:
    """`started`, then `ended` (success) or `failed`. Of a process: `drained` (it stopped in good order), `gone`."""

    kind: str
    pid: int
    time: float
    key: str = ""
    partition: int = -1
    offset: int = -1
    attempt: int = 0
    retry: bool = False
    """It came out of the retry topic."""
    final: bool = False
    """Of a failure: the record becomes a dead letter."""
    late: bool = False
    """By a process that has lost its partitions and may not know it."""

    @property
    def place(self) -> Place:
        return (self.partition, self.offset)

    @property
    def chain(self) -> Chain:
        return (self.partition, self.key)

    def __str__(self) -> str:
        return f"{self.kind} {self.key} {self.partition}@{self.offset} attempt {self.attempt} by {self.pid}"


class HistoryReader:
    """Reads what was appended since it read last."""

    def __init__(self, path: str) -> None:
        self._path, self._read_to = Path(path), 0
        self._events: list[Event] = []

    def read(self) -> list[Event]:
        """All events so far."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._read_to)
                *lines, _ = file.read().split(b"\n")  # the last line may be under way
            self._read_to += sum(len(line) + 1 for line in lines)
            self._events += [Event(**json.loads(line)) for line in lines]
        return self._events


class History:
    """As it was at one moment. `killed`: how many processes did not end in good order, or did not know their state."""

    def __init__(
        self,
        events: Iterable[Event],
        zombies: Mapping[int, Span] | None = None,
        unsettled: Iterable[Chain] = (),
    ) -> None:
        """`zombies`: from when to when a process, by its id, may have been without its partitions.

        Of keys that it runs then, and of those that are `unsettled` (what their handlers came to may have been
        written late), neither order nor attempts are checked; of all others they are.
        """
        self._zombies = dict(zombies or {})
        self.events = [replace(event, late=self._is_late(event)) for event in events]
        self._touched = {event.chain for event in self.events if event.late}.union(unsettled)
        drained = {event.pid for event in self.events if event.kind == "drained"}
        self.killed = len({event.pid for event in self.events if event.kind == "gone"} - drained | self._zombies.keys())

    def _is_late(self, event: Event) -> bool:
        since, until = self._zombies.get(event.pid, (math.inf, math.inf))
        return since < event.time <= until

    def places(self, kind: str) -> set[Place]:
        return {event.place for event in self.events if event.kind == kind}

    def count(self, kind: str, *, retry: bool | None = None) -> int:
        """How many events of a kind; `retry`: only those of the one side."""
        return sum(event.kind == kind and retry in (None, event.retry) for event in self.events)

    def partitions(self, pid: int, *, retry: bool) -> list[int]:
        """Of which partitions a process has started records, start by start."""
        return [e.partition for e in self.events if e.kind == "started" and e.pid == pid and e.retry is retry]

    # Promises

    def no_loss(self, produced: Collection[Place], dead_letters: Collection[Place]) -> None:
        """Every record has succeeded, or is a dead letter."""
        if lost := sorted(set(produced) - self.places("ended") - set(dead_letters)):
            raise BrokenPromise(f"{len(lost)} records never reached an end: {lost[:10]}")

    def key_order(self, chains: Mapping[Chain, list[int]]) -> None:
        """Nothing of a key starts before all that was produced before it has ended, or while another of it runs.

        Each replay is in order too: at rest, the last starts of a key's records are in the order of the records.
        """
        ended: set[Place] = set()
        running: dict[Chain, Event] = {}
        last_start: dict[Place, int] = {}
        for number, event in enumerate(self.events):
            chain = event.chain
            if event.kind == "gone":
                running = {key: other for key, other in running.items() if other.pid != event.pid}
            elif chain in self._touched:
                continue
            elif event.kind == "started":
                other = running.get(chain)
                if other is not None and event.time <= self._zombies.get(other.pid, (math.inf,))[0]:
                    raise BrokenPromise(f"[{event}] while [{other}] runs")
                offsets = chains[chain]
                before = [o for o in offsets[: offsets.index(event.offset)] if (event.partition, o) not in ended]
                if before:
                    raise BrokenPromise(f"[{event}] before the end of {before} of its key")
                running[chain] = event
                last_start[event.place] = number
            elif event.kind in ("ended", "failed"):
                del running[chain]
                if event.kind == "ended" or event.final:
                    ended.add(event.place)
        for (partition, key), offsets in chains.items():
            if (partition, key) in self._touched:
                continue
            started = [last_start[partition, o] for o in offsets if (partition, o) in last_start]
            if started != sorted(started):
                raise BrokenPromise(f"the last replay of {key} in partition {partition} was out of order")

    def honest_attempts(self) -> None:
        """A record's attempt is the number of its failures before. A kill may lose one that was not yet written."""
        failed: defaultdict[Place, int] = defaultdict(int)
        seen: defaultdict[Place, int] = defaultdict(int)
        for event in self.events:
            if event.chain in self._touched:
                continue
            if event.kind == "started":
                most = failed[event.place]
                if not most - self.killed <= event.attempt <= most or event.attempt < seen[event.place]:
                    raise BrokenPromise(f"[{event}] after {most} failures, at most {self.killed} of them lost")
                seen[event.place] = event.attempt
            elif event.kind == "failed":
                failed[event.place] += 1

    def retries_end_once(self) -> None:
        """Where nothing was killed: what has succeeded out of the retry topic, or has died, never starts again.

        First runs may: a commit stops at the lowest record that is not complete, and other keys' are beyond it.
        """
        self._never_again(lambda event: event.retry or event.final)

    def nothing_twice(self) -> None:
        """No record that has succeeded starts again."""
        self._never_again(lambda event: True)

    def _never_again(self, counts: Callable[[Event], bool]) -> None:
        ended: set[Place] = set()
        for event in self.events:
            if event.kind == "started" and event.place in ended:
                raise BrokenPromise(f"[{event}] after its end")
            if (event.kind == "ended" or event.final) and counts(event):
                ended.add(event.place)

    def dead_keys_stand_still(self) -> None:
        """Where dead keys are not freed: nothing runs behind a record that has failed for good."""
        died: dict[Chain, int] = {}
        for event in self.events:
            chain = event.chain
            if event.kind == "started" and event.offset > died.get(chain, event.offset):
                raise BrokenPromise(f"[{event}] behind the dead record at {died[chain]}")
            if event.kind == "failed" and event.final:
                died.setdefault(chain, event.offset)
