"""Garbage in the redirect topic."""

from __future__ import annotations

import json
import re
from contextlib import closing

from hypothesis import given
from hypothesis import strategies as st

from kafetrain.record import MessageId
from tests.fuzz.damage import CANARY, GROUP, TOPIC, any_headers, evenly, redirect_keys, redirect_values
from tests.fuzz.garbage import Fuzzed, Step, run, steps_with

__all__ = ["redirect_topics"]

_ID = re.compile(r"([^/]+)/([^/]+)/([0-9]{1,19})/([0-9]{1,19})")
_REGISTRATION = re.compile(r"group/[^/]+", re.DOTALL)


def kind_of(key: bytes | None, value: bytes | None) -> str:
    """`counted`, `passed`, or `ours` for what is another strategy's to make."""
    try:
        text = (key or b"").decode()
    except UnicodeDecodeError:
        return "counted"
    if _REGISTRATION.fullmatch(text):
        return "ours" if text == f"group/{GROUP}" or is_object(value) else "passed" if value is None else "counted"
    found = _ID.fullmatch(text)
    if found is None or int(found[3]) >= 2**31 or int(found[4]) >= 2**63:
        return "counted"
    return "ours" if (found[1], found[2]) == (GROUP, TOPIC) else "passed"


def is_object(value: bytes | None) -> bool:
    try:
        return isinstance(json.loads(value or b""), dict)
    except (ValueError, RecursionError):
        return False


_noise: st.SearchStrategy[Step] = (
    st.tuples(redirect_keys, redirect_values, any_headers, st.integers(0, 1))
    .map(lambda made: (kind_of(*made[:2]), made))
    .filter(lambda kind_and_made: kind_and_made[0] != "ours")
    .map(lambda made: lambda sim: sim.put(sim.names.redirect, *made[1], counts=made[0] == "counted"))
)
_WRONG: list[dict[str, object]] = [
    {"v": None},
    {"v": 1.5},
    {"key": "\x00"},
    {"key": 5},
    {"state": CANARY},
    {"state": [CANARY]},
    {"due": -1},
    {"attempt": "1"},
    {"error_type": 1},
]
_almost_entries = st.sampled_from(_WRONG).map(
    lambda wrong: json.dumps({"v": 1, "key": None, "state": "pending", "attempt": 0, "due": 0, **wrong}).encode()
)
_no_entries = evenly(_almost_entries, redirect_values.filter(lambda value: value is not None and not is_object(value)))


def _damage_one(at: int, beyond: int | None, value: bytes) -> Step:
    def damage(sim: Fuzzed) -> None:
        if beyond is not None or not sim.written:
            partition, offset = at % 2, sim.cluster.end_offsets(TOPIC)[at % 2] + (beyond or 0)
        else:
            record = sim.written[at % len(sim.written)]
            partition, offset = record.place
            sim.spare(record)
        id = str(MessageId(GROUP, TOPIC, partition, offset)).encode()
        sim.put(sim.names.redirect, id, value, (), partition, counts=True)

    return damage


_damaged_entries: st.SearchStrategy[Step] = st.builds(
    _damage_one, st.integers(0, 20), st.none() | st.integers(0, 3), _no_entries
)
_of_no_partition: st.SearchStrategy[Step] = st.builds(
    lambda partition, value: (
        lambda sim: sim.put(
            sim.names.redirect, f"{GROUP}/{TOPIC}/{partition}/0".encode(), value, (), partition % 2, counts=True
        )
    ),
    st.sampled_from([2, 3, 2**31 - 1]),
    _no_entries,
)


@given(steps_with(evenly(_noise, _damaged_entries, _of_no_partition)))
def redirect_topics(steps: list[Step]) -> None:
    with closing(Fuzzed()) as sim:
        run(steps, sim)
