"""What one group of a simulated application has to keep: the promises, of whom, and of which keys.

A zombie is an instance whose sessions have ended without its knowing: it goes on until its next poll. With plain
delivery it may break the order of the keys that it runs or writes, and nothing else. With transactions it changes
nothing, and what its handlers do does not count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta

from kafetrain.client.ports import ConsumerPort, OutgoingRecord
from kafetrain.record import DlqHeader, Record, RetryHeader, TopicPartition, header
from kafetrain.settings import Settings
from kafetrain.testing.events import Chain, Place, chain_of
from kafetrain.testing.promises import (
    HonestAttempts,
    Independence,
    Isolation,
    KeyOrder,
    NoLoss,
    NoZombieLocks,
    Progress,
    Promise,
)
from kafetrain.testing.simulated import SimulatedCluster
from kafetrain.topics import AuxiliaryTopics
from tests.simulation.further_promises import NothingTwice, OfOwners, PerKey, Replayed, ZombieRuns, Zombies

__all__ = ["Expectations"]

NO_TIME = timedelta(0)


class Expectations:
    """Of one group on one topic. `keys`: of all records that were written, by place."""

    def __init__(
        self,
        cluster: SimulatedCluster,
        settings: Settings,
        topic: str,
        zombies: Zombies,
        keys: dict[Place, bytes | None],
    ) -> None:
        self._cluster, self._settings, self._topic = cluster, settings, topic
        self._zombies, self._keys = zombies, keys
        self._names = AuxiliaryTopics.of(settings, topic)
        self._ids = re.compile(rf"{re.escape(settings.group_id)}/{re.escape(topic)}/(\d+)/(\d+)")
        self._excused: set[Chain] = set()
        self._asked_again: set[Chain] = set()
        self._replayed = Replayed()
        self._watch: ConsumerPort | None = None
        self._known: dict[str, tuple[int, dict[Place, str]]] = {}

    def promises(self) -> list[Promise]:
        promises: list[Promise] = [
            ZombieRuns(self._zombies, self._excused),
            NoLoss(),
            PerKey(lambda: KeyOrder(self.has_died), self.is_excused),
            Independence(),
            Progress(self._topic),
            NoZombieLocks(),
            PerKey(lambda: HonestAttempts(lambda place: place in self.dead()), self.is_excused),
            Isolation(),
            self._replayed,
        ]
        if self._settings.delivery != "transactional":
            return promises
        asked_again = self._asked_again
        twice = NothingTwice(lambda: (r for r in self._records() if self._chain(r[1]) not in asked_again))
        return [OfOwners([*promises[1:], twice], self._zombies)]

    # What an operator changes

    def replay(self, chain: Chain, *, appended: bool) -> None:
        """An operator asks for it. `appended`: behind what the key has done since, so its order is not the source's."""
        if appended:
            self._excused.add(chain)
        self._asked_again.add(chain)
        if self._watch is None:
            self._watch = self._cluster.client(f"{self._settings.group_id}.watch").reader()
            topics = self._cluster.topics()
            places = [TopicPartition(t, n) for t in (self._names.dlq, self._names.redirect) for n in range(topics[t])]
            self._watch.assign({place: self._cluster.end_offsets(place.topic)[place.partition] for place in places})

    def look(self) -> None:
        """At what has been replayed by now, and at what zombies write."""
        self._excuse_writes()
        if self._watch is None:
            return
        batches = self._watch.poll(NO_TIME)
        for topic in (self._names.dlq, self._names.redirect):
            for record in (r for place, records in batches.items() if place.topic == topic for r in records):
                place = self._place(record)
                if place is None:
                    continue
                if topic == self._names.dlq:
                    self._replayed.died(place)
                elif _is_put_back(record):
                    self._replayed.replayed(place)

    # Which keys count

    def is_excused(self, chain: Chain) -> bool:
        """Nobody promises its order."""
        self._excuse_writes()
        return chain in self._excused

    def _excuse_writes(self) -> None:
        if self._settings.delivery == "transactional":
            return
        for write in [write for name in self._zombies.names for write in self._cluster.in_flight(name)]:
            if (place := self._place(write.record)) is not None:
                self._excused.add(self._chain(place))

    # Where things stand

    def dead(self) -> dict[Place, str]:
        """Records in the dead-letter topic."""
        names, group = self._names, self._settings.group_id
        return self._as_of_now(names.dlq, lambda: self._cluster.dead_places(names.dlq, group))

    def has_died(self, place: Place) -> bool:
        """It is a dead letter, and was not replayed."""
        return place in self.dead() and self._as_of_now(self._names.redirect, self._locks).get(place) != "pending"

    def _locks(self) -> dict[Place, str]:
        found = {}
        for id, entry in self._cluster.locks(self._names.redirect).items():
            if (match := self._ids.fullmatch(id)) is not None:
                found[int(match[1]), int(match[2])] = str(entry.get("state", "pending"))
        return found

    def _as_of_now(self, topic: str, read: Callable[[], dict[Place, str]]) -> dict[Place, str]:
        if topic not in self._cluster.topics():
            return {}
        end = sum(self._cluster.end_offsets(topic).values())
        known = self._known.get(topic)
        if known is None or known[0] != end:
            known = self._known[topic] = (end, read())
        return known[1]

    def _records(self) -> Iterator[tuple[str, Place, Record]]:
        """Of the group, in its auxiliary topics, as readers of committed records see them; without control records."""
        for topic in self._names.auxiliary:
            for record in self._cluster.read(topic) if topic in self._cluster.topics() else ():
                place = self._place(record)
                if place is not None and header(record, RetryHeader.CONTROL) is None:
                    yield topic, place, record

    def _place(self, record: Record | OutgoingRecord) -> Place | None:
        headers = {name: (value or b"").decode("utf-8", "replace") for name, value in record.headers}
        text = (
            headers.get(RetryHeader.ID) or headers.get(DlqHeader.ID) or (record.key or b"").decode("utf-8", "replace")
        )
        match = self._ids.fullmatch(text)
        return None if match is None else (int(match[1]), int(match[2]))

    def _chain(self, place: Place) -> Chain:
        return chain_of(*place, self._keys.get(place))


def _is_put_back(entry: Record) -> bool:
    """By an operator: pending, its attempts counted anew."""
    value = entry.value or b""
    return header(entry, RetryHeader.COMMAND) is not None and b'"pending"' in value and b'"attempt":0' in value
