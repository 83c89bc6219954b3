"""The delivery promises as objects: fed with what happens, each raises `BrokenPromise` where it does not hold.

They know what was written, what handlers did, and what the topics say; nothing of how kafetrain works.

    promises = [NoLoss(), KeyOrder(is_dead), Progress()]
    journal = Journal(promises=promises)        feeds them, from wrapped handlers
    journal.wrote(record) ... journal.check()   after every step
    journal.at_quiet(standing)                  nothing happens any more before time passes
    journal.at_rest(standing)                   nothing waits any more
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from kafetrain.testing.events import BrokenPromise, Chain, Event, Place, Standing, Written, some

__all__ = [
    "HonestAttempts",
    "Independence",
    "Isolation",
    "KeyOrder",
    "NoLoss",
    "NoZombieLocks",
    "Progress",
    "Promise",
    "all_promises",
]


class Promise:
    """Of one consumer group on one source topic. What a promise does not look at, it ignores."""

    def wrote(self, record: Written) -> None:
        """It is in the source topic."""

    def see(self, event: Event) -> None:
        """The next event."""

    def at_quiet(self, standing: Standing) -> None:
        """Nothing happens any more before time passes or something is done from outside."""

    def at_rest(self, standing: Standing) -> None:
        """Nothing waits any more: every retry has had its time, and everything is committed."""


class NoLoss(Promise):
    """At rest every record has succeeded, or is a dead letter."""

    def __init__(self) -> None:
        self._ended: set[Place] = set()

    def see(self, event: Event) -> None:
        if event.kind == "ended":
            self._ended.add(event.place)

    def at_rest(self, standing: Standing) -> None:
        if lost := {record.place for record in standing.written} - self._ended - standing.dead_letters.keys():
            raise BrokenPromise(f"neither succeeded nor dead: {some(lost)}")


class KeyOrder(Promise):
    """No record of a key starts before every earlier one has succeeded or is dead, nor while another of it runs.

    Between two interruptions a key only goes forward. After one, records that have ended may run again: from an
    earlier one on, and forward again. `is_dead`: whether the record is a dead letter, parked ones included, by now.
    """

    def __init__(self, is_dead: Callable[[Place], bool] = lambda place: False) -> None:
        self._is_dead = is_dead
        self._unended: defaultdict[Chain, set[int]] = defaultdict(set)
        self._ended: set[Place] = set()
        self._running: dict[Place, tuple[Chain, str]] = {}
        self._latest: dict[Chain, int] = {}  # started since the last interruption
        self._starts = 0
        self._last_start: dict[Place, int] = {}
        self._chains: dict[Place, Chain] = {}

    def wrote(self, record: Written) -> None:
        self._unended[record.chain].add(record.offset)

    def see(self, event: Event) -> None:
        if event.kind == "interrupted":
            self._running = {p: run for p, run in self._running.items() if run[1] != event.instance}
            self._latest.clear()
        elif event.kind == "started":
            self._start(event)
        else:
            self._running.pop(event.place, None)
            if event.kind == "ended" or event.final:
                self._end(event.chain, event.offset)

    def at_rest(self, standing: Standing) -> None:
        """As well: the last time that each record of a key ran was in their order."""
        latest: dict[Chain, tuple[int, int]] = {}
        for place in sorted(self._last_start):
            chain, at = self._chains[place], self._last_start[place]
            if chain in latest and at < latest[chain][0]:
                raise BrokenPromise(f"offset {latest[chain][1]} of {chain} ran again after {place[1]} had run last")
            latest[chain] = (at, place[1])

    def _start(self, event: Event) -> None:
        latest = self._latest.get(event.chain)
        if event.place in self._running:
            raise BrokenPromise(f"{event} runs twice at the same time")
        for offset in [o for o in self._unended[event.chain] if self._is_dead((event.partition, o))]:
            if offset != event.offset:
                self._end(event.chain, offset)
        if latest is not None and event.offset < latest:
            raise BrokenPromise(f"{event} started after offset {latest} of its key, and nothing was interrupted")
        if latest == event.offset and event.place in self._ended:
            raise BrokenPromise(f"{event} ran again after it had ended, and nothing was interrupted")
        if earlier := [offset for offset in self._unended[event.chain] if offset < event.offset]:
            raise BrokenPromise(f"{event} started before offset {min(earlier)} of its key had ended")
        if others := [place for place, run in self._running.items() if run[0] == event.chain]:
            raise BrokenPromise(f"{event} started while {some(others)} of its key runs")
        self._running[event.place] = (event.chain, event.instance)
        self._latest[event.chain] = event.offset
        self._starts += 1
        self._last_start[event.place] = self._starts
        self._chains[event.place] = event.chain
        if event.place not in self._ended:
            self._unended[event.chain].add(event.offset)

    def _end(self, chain: Chain, offset: int) -> None:
        self._ended.add((chain[0], offset))
        self._unended[chain].discard(offset)


class Independence(Promise):
    """What waits delays no other key: at quiet, every record of a key without a lock has ended."""

    def __init__(self) -> None:
        self._ended: set[Place] = set()

    def see(self, event: Event) -> None:
        if event.kind == "ended":
            self._ended.add(event.place)

    def at_quiet(self, standing: Standing) -> None:
        chains = {record.place: record.chain for record in standing.written}
        waiting = {chains[place] for place in standing.locks if place in chains}
        open_ = [r for r in standing.written if r.place not in self._ended and r.place not in standing.dead_letters]
        if delayed := [record.place for record in open_ if record.chain not in waiting]:
            raise BrokenPromise(f"nothing of their keys waits, and they did not run: {some(delayed)}")


class Progress(Promise):
    """While keys wait, everything read is committed: at quiet the source topic, at rest the retry topic too.

    `source`: the source topic's name.
    """

    def __init__(self, source: str) -> None:
        self._source = source

    def at_quiet(self, standing: Standing) -> None:
        self._check({p: n for p, n in standing.uncommitted.items() if p.startswith(f"{self._source}[")})

    def at_rest(self, standing: Standing) -> None:
        self._check(standing.uncommitted)

    def _check(self, uncommitted: object) -> None:
        if uncommitted:
            raise BrokenPromise(f"the committed offsets are behind: {uncommitted}")


class NoZombieLocks(Promise):
    """At rest no lock is pending. A dead one is no zombie: it waits for an operator."""

    def at_rest(self, standing: Standing) -> None:
        if pending := [place for place, state in standing.locks.items() if state != "dead"]:
            raise BrokenPromise(f"locks that nothing ends: {some(pending)}")


class HonestAttempts(Promise):
    """A record's attempt is the number of its executions that failed before.

    An interruption may lose the failure that it met before that was written, or that of a run that it met; no other. A
    record that has ended and runs again begins anew. `is_dead`: as for `KeyOrder`.
    """

    def __init__(self, is_dead: Callable[[Place], bool] = lambda place: False) -> None:
        self._is_dead = is_dead
        self._failed: defaultdict[Place, int] = defaultdict(int)
        self._fresh: set[Place] = set()  # the last event of these was a failure
        self._running: set[Place] = set()
        self._met: set[Place] = set()  # an interruption met them while they ran
        self._lost: set[Place] = set()  # may have lost a failure
        self._ended: set[Place] = set()

    def see(self, event: Event) -> None:
        if event.kind == "interrupted":
            self._lost |= self._fresh
            self._met |= self._running
            return
        if event.kind == "started":
            self._start(event)
            self._running.add(event.place)
            self._met.discard(event.place)
            return
        self._running.discard(event.place)
        if event.kind == "failed":
            self._failed[event.place] += 1
            self._fresh.add(event.place)
            self._lost |= {event.place} & self._met
        elif event.kind == "ended":
            self._ended.add(event.place)

    def _start(self, event: Event) -> None:
        most = self._failed[event.place]
        least = most - (event.place in self._lost)
        anew = event.attempt == 0 and (event.place in self._ended or self._is_dead(event.place))
        if not least <= event.attempt <= most and not anew:
            raise BrokenPromise(f"{event} has failed {most} times")
        self._failed[event.place] = event.attempt
        self._fresh.discard(event.place)
        self._lost.discard(event.place)


class Isolation(Promise):
    """A group runs no retry of another group, and writes nothing of it."""

    def see(self, event: Event) -> None:
        if event.kind == "started" and event.group and event.retried_by not in ("", event.group):
            raise BrokenPromise(f"{event}, a retry of group {event.retried_by}, was run by group {event.group}")

    def at_quiet(self, standing: Standing) -> None:
        if standing.foreign_writes:
            raise BrokenPromise(f"written by another group: {', '.join(standing.foreign_writes[:10])}")

    at_rest = at_quiet


def all_promises(source: str, is_dead: Callable[[Place], bool] = lambda place: False) -> list[Promise]:
    """One of each, for a source topic. `is_dead`: as for `KeyOrder`."""
    return [
        NoLoss(),
        KeyOrder(is_dead),
        Independence(),
        Progress(source),
        NoZombieLocks(),
        HonestAttempts(is_dead),
        Isolation(),
    ]
