"""Promises of a simulated application, beside those that users have: about zombies, transactions and replays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from kafetrain.record import Record
from kafetrain.testing.events import BrokenPromise, Chain, Event, Place, Standing, Written, some
from kafetrain.testing.promises import Promise
from kafetrain.testing.simulated.group import Member
from tests.simulation.instance import SimulatedInstance

__all__ = ["NothingTwice", "OfOwners", "PerKey", "Replayed", "ZombieRuns", "Zombies"]


class PerKey(Promise):
    """One promise for each key. One that `is_excused` may do as it likes."""

    def __init__(self, make: Callable[[], Promise], is_excused: Callable[[Chain], bool]) -> None:
        self._make, self._is_excused = make, is_excused
        self._promises: dict[Chain, Promise] = {}

    def wrote(self, record: Written) -> None:
        self._of(record.chain).wrote(record)

    def see(self, event: Event) -> None:
        if event.kind == "interrupted":
            for promise in self._promises.values():
                promise.see(event)
        elif not self._is_excused(event.chain):
            self._of(event.chain).see(event)

    def at_rest(self, standing: Standing) -> None:
        for chain, promise in self._promises.items():
            if not self._is_excused(chain):
                promise.at_rest(standing)

    def _of(self, chain: Chain) -> Promise:
        if chain not in self._promises:
            self._promises[chain] = self._make()
        return self._promises[chain]


class Zombies:
    """Which sides of which instances go on without their membership."""

    def __init__(self) -> None:
        self._members: dict[tuple[str, str], Member] = {}
        self._lives: Counter[tuple[str, str]] = Counter()

    def add(self, instance: SimulatedInstance) -> None:
        """Its sessions end now."""
        for side, consumer in instance.consumers.items():
            if consumer._member is not None:
                self._members.setdefault((instance.name, side), consumer._member)
                self._lives[instance.name, side] += 1

    def look(self, instance: SimulatedInstance) -> None:
        """Is it a member again, and knows what it has?"""
        for side, consumer in instance.consumers.items():
            former = self._members.get((instance.name, side))
            if former is not None and consumer._member is not former and consumer._generation >= 0:
                del self._members[instance.name, side]

    def forget(self, name: str) -> None:
        """It has ended."""
        for of in [of for of in self._members if of[0] == name]:
            del self._members[of]

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self._members}

    def life_of(self, event: Event) -> int | None:
        """Of the side that runs it, which begins anew with each membership. None: a zombie runs it."""
        of = (event.instance, "retry" if event.retried_by else "source")
        return None if of in self._members else self._lives[of]


class ZombieRuns(Promise):
    """With plain delivery nobody promises the order of keys that a zombie runs: they go to `excused`."""

    def __init__(self, zombies: Zombies, excused: set[Chain]) -> None:
        self._zombies, self._excused = zombies, excused

    def see(self, event: Event) -> None:
        if event.kind == "started" and self._zombies.life_of(event) is None:
            self._excused.add(event.chain)


class OfOwners(Promise):
    """Other promises, which see nothing of what zombies run, nor the end of what somebody began who became one."""

    def __init__(self, promises: Sequence[Promise], zombies: Zombies) -> None:
        self._promises, self._zombies = promises, zombies
        self._running: dict[tuple[str, Place], int | None] = {}

    def wrote(self, record: Written) -> None:
        for promise in self._promises:
            promise.wrote(record)

    def see(self, event: Event) -> None:
        if event.kind != "interrupted":
            run, life = (event.instance, event.place), self._zombies.life_of(event)
            if event.kind == "started":
                self._running[run] = life
            elif self._running.pop(run, None) != life:
                return
            if life is None:
                return
        for promise in self._promises:
            promise.see(event)

    def at_quiet(self, standing: Standing) -> None:
        for promise in self._promises:
            promise.at_quiet(standing)

    def at_rest(self, standing: Standing) -> None:
        for promise in self._promises:
            promise.at_rest(standing)


class Replayed(Promise):
    """What an operator has put into retry again has run since, or is a dead letter once more."""

    def __init__(self) -> None:
        self._waiting: set[Place] = set()

    def replayed(self, place: Place) -> None:
        """Its lock is pending again."""
        self._waiting.add(place)

    def died(self, place: Place) -> None:
        self._waiting.discard(place)

    def see(self, event: Event) -> None:
        if event.kind == "started":
            self._waiting.discard(event.place)

    def at_rest(self, standing: Standing) -> None:
        if self._waiting:
            raise BrokenPromise(f"replayed, and never ran: {some(self._waiting)}")


class NothingTwice(Promise):
    """At rest no record has two retry records or dead letters, nor the same lock twice in a row.

    `read`: what readers of committed records see in the auxiliary topics, by topic and source record.
    """

    def __init__(self, read: Callable[[], Iterable[tuple[str, Place, Record]]]) -> None:
        self._read = read

    def at_rest(self, standing: Standing) -> None:
        count: Counter[tuple[str, Place]] = Counter()
        locks: dict[tuple[str, Place], bytes | None] = {}
        for topic, place, record in self._read():
            is_lock = (record.key or b"").endswith(f"/{place[0]}/{place[1]}".encode())
            if is_lock and (topic, place) in locks and locks[topic, place] == record.value:
                raise BrokenPromise(f"twice in a row in {topic}: {some([place])}")
            if is_lock:
                locks[topic, place] = record.value
                continue
            count[topic, place] += 1
            if count[topic, place] > 1:
                raise BrokenPromise(f"twice in {topic}: {some([place])}")
