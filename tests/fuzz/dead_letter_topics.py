"""Garbage in the dead-letter topic."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kafetrain.deadletter import Filter
from kafetrain.record import DlqHeader, MessageId
from tests.fuzz.damage import GROUP, Pairs, dead_letter_headers, nullable
from tests.fuzz.garbage import KEYS, Fuzzed, Step, run, steps_with
from tests.simulation.sim import Plan

__all__ = ["dead_letter_topics"]


def _is_ours(headers: Pairs) -> bool:
    return any(name == DlqHeader.ID and (value or b"").startswith(b"g/orders/") for name, value in headers)


_letters: st.SearchStrategy[Step] = st.builds(
    lambda key, value, headers, partition: (
        lambda sim: sim.put(sim.names.dlq, key, value, headers, partition, counts=False)
    ),
    st.sampled_from(KEYS) | nullable,
    nullable,
    dead_letter_headers.filter(lambda headers: not _is_ours(headers)),
    st.integers(0, 1),
)
_dying: st.SearchStrategy[Step] = st.builds(
    lambda key, partition: lambda sim: sim.write(key, Plan(fails=3), partition),
    st.sampled_from([b"a", b"b"]),
    st.integers(0, 1),
)


@given(steps_with(_letters | _dying))
def dead_letter_topics(steps: list[Step]) -> None:
    """Dead keys are listed among the garbage, and replayed out of it."""
    with closing(Fuzzed()) as sim:
        run(steps, sim)
        with sim.operator() as letters:
            listed = list(letters.scan(Filter(marks=True)))
            for letter in listed[:3]:
                assert letters.show(*letter.place) == letter
            letters.history(b"a")
            for record in sim.written:
                sim.spare(record)  # what is replayed comes after what has passed it
        for _ in sim.written:  # one that was parked behind a dead one may die in its turn
            sim.replay_all()
        ended = set(sim.journal.places("ended"))
        assert {record.place for record in sim.written} == ended, "the dead ones were replayed"
        there = sim.cluster.read(sim.names.dlq)
        others = sum(1 for record in there if _is_letter_of_others(record.headers))
        with sim.operator() as letters:
            assert sum(1 for _ in letters.scan(Filter(marks=True))) == len(there) - others


def _is_letter_of_others(headers: Any) -> bool:
    """The last id says whose it is."""
    texts = [value or b"" for name, value in headers if name == DlqHeader.ID]
    try:
        return bool(texts) and MessageId.parse(texts[-1].decode("utf-8", "replace")).group != GROUP
    except ValueError:
        return False
