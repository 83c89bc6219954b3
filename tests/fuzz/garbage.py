"""Whole layers, with garbage between the records of their topics: the work of all other keys ends, and it is counted.

A garbage record's kind is known from how it is made, not from how kafetrain reads it:

| in the | what | must lead to |
| --- | --- | --- |
| redirect topic | no id and no registration | one more in `malformed`, and nothing else |
| | an id of somebody else, whatever its value | nothing |
| | an id of ours, and no entry | one more in `malformed`; the record waits until its retry record or the source tells |
| retry topic | no retry record | one more in `malformed`, and a dead letter with all that it had |
| | a retry record of somebody else; of an id that has ended; a control record that comes too late | nothing |
| dead-letter topic | anything | it is listed, and passed over by a replay |

One more in `malformed` is one more in the metric, and one log event that quotes nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hypothesis import note
from hypothesis import strategies as st
from loguru import logger
from prometheus_client import CollectorRegistry

from kafetrain.deadletter import DeadLetters
from kafetrain.record import TopicPartition
from kafetrain.telemetry import Metrics
from kafetrain.testing.events import Chain, Event, Standing, Written
from kafetrain.testing.promises import HonestAttempts, KeyOrder, Promise, all_promises
from tests.fuzz.damage import CANARY, GROUP, TOPIC, evenly
from tests.simulation.sim import Plan, Sim

if TYPE_CHECKING:
    from loguru import Message


__all__ = ["KEYS", "NOWHERE", "Fuzzed", "Step", "real", "run", "steps_with"]

KEYS = (b"a", b"b", None)
NOWHERE = 1000
"""From here on no partition has records."""

Step = Callable[["Fuzzed"], object]


class Sparing(Promise):
    """A promise that says nothing of a key once one of its entries was damaged, or it was replayed."""

    def __init__(self, promise: Promise, spared: set[Chain]) -> None:
        self._promise, self._spared = promise, spared

    def wrote(self, record: Written) -> None:
        self._promise.wrote(record)

    def see(self, event: Event) -> None:
        if event.kind == "interrupted" or event.chain not in self._spared:
            self._promise.see(event)

    def at_quiet(self, standing: Standing) -> None:
        self._promise.at_quiet(standing)

    def at_rest(self, standing: Standing) -> None:
        self._promise.at_rest(standing)


class Fuzzed(Sim):
    """One instance. Locks of records that were never written are garbage's own, and nobody's business."""

    def __init__(self, **settings: Any) -> None:
        self.spared: set[Chain] = set()
        self.garbage: defaultdict[TopicPartition, set[int]] = defaultdict(set)
        """What must be counted, once for each instance that reads it."""
        self.logged: Counter[tuple[TopicPartition, int]] = Counter()
        super().__init__(partitions=2, hold_writes=False, promises=self._promised, say=note, **settings)
        self.instance = self.start()
        self.settle()

    def _promised(self, group: str) -> list[Promise]:
        of_order = (KeyOrder, HonestAttempts)
        promises = all_promises(TOPIC, lambda place: place in self.expectations[group].dead())
        return [Sparing(promise, self.spared) if isinstance(promise, of_order) else promise for promise in promises]

    def standing(self, group: str) -> Standing:
        found, there = super().standing(group), {record.place for record in self.written}
        return replace(found, locks={place: state for place, state in found.locks.items() if place in there})

    def put(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Any, partition: int, *, counts: bool
    ) -> None:
        (put,) = self.cluster.write(topic, key, value, partition=partition, headers=headers)
        if counts:
            self.garbage[TopicPartition(topic, partition)].add(put.offset)

    def spare(self, record: Written) -> None:
        """Nothing is promised of its key's order from now on."""
        self.spared.add(record.chain)

    def operator(self) -> DeadLetters:
        client, wait = self.cluster.client(f"{GROUP}.operator"), self.clock.advance
        return DeadLetters(self.settings(GROUP), TOPIC, client, clock=self.clock, wait=wait)

    def replay_all(self) -> None:
        """Everything that is dead, to the end."""
        with self.operator() as letters:
            letters.replay(all=True, wait=False, by="me")
        self.flow()
        while not self.instance.lookups.is_idle:
            self.flow(1)
        self.drain()

    def restart(self) -> None:
        """It dies, and the next one reads the redirect topic from its beginning."""
        self.kill(self.instance)
        self.expire_killed()
        self.compact()
        left = {(record.partition, record.offset) for record in self.cluster.read(self.names.redirect)}
        committed = self.cluster.committed(self.settings(GROUP).retry_group_id, self.names.retry)
        for place, offsets in self.garbage.items():
            if place.topic == self.names.redirect:
                offsets &= {offset for partition, offset in left if partition == place.partition}
            else:
                at = committed.get(place.partition)
                offsets -= set(range(at.next_offset)) if at is not None else set()
        self.logged.clear()
        self.instance = self.start()
        self.settle()

    def end(self) -> None:
        """Everything that is real has ended, and what is not was counted."""
        self.flow()
        assert self.instance.error is None
        self.drain()
        assert self.instance.error is None
        expected = {place: len(offsets) for place, offsets in self.garbage.items() if offsets}
        assert self.instance.tracker.malformed(TOPIC) == expected
        assert self.logged == Counter((place, offset) for place, offsets in self.garbage.items() for offset in offsets)
        registry = CollectorRegistry()
        Metrics(registry).watch(self.instance.tracker)
        for place, count in expected.items():
            labels = {"topic": TOPIC, "log": place.topic, "partition": str(place.partition)}
            assert registry.get_sample_value("kafetrain_malformed_records", labels) == count

    def hear(self, message: Message) -> None:
        """A log event."""
        said = message.record
        assert CANARY not in f"{said['message']} {said['extra']}"
        if said["message"].startswith(("a record that is not ours or is damaged", "not a retry record")):
            bound = said["extra"]
            self.logged[TopicPartition(bound["topic"], bound["partition"]), bound["offset"]] += 1


plans = st.builds(Plan, fails=st.sampled_from([0, 0, 1, 2, 3]), pauses=st.sampled_from([0, 0, 0, 1]))
real: st.SearchStrategy[Step] = st.builds(
    lambda key, plan, partition: lambda sim: sim.write(key, plan, partition),
    st.sampled_from(KEYS),
    plans,
    st.integers(0, 1),
)


def _pass_time(seconds: float) -> Step:
    def pass_time(sim: Fuzzed) -> None:
        sim.advance(seconds)
        sim.flow(3)

    return pass_time


time_passes: st.SearchStrategy[Step] = st.sampled_from([0.0, 1.1, 11.0]).map(_pass_time)
restarts: st.SearchStrategy[Step] = st.just(lambda sim: sim.restart())


def run(steps: list[Step], sim: Fuzzed) -> None:
    """To the end."""
    logger.enable("kafetrain")
    sink = logger.add(sim.hear, level="DEBUG", catch=False)
    try:
        for step in steps:
            step(sim)
        sim.end()
    finally:
        logger.remove(sink)
        logger.disable("kafetrain")


def steps_with(garbage: st.SearchStrategy[Step]) -> st.SearchStrategy[list[Step]]:
    return st.lists(evenly(garbage, garbage, real, real, time_passes, restarts), min_size=1, max_size=12)
