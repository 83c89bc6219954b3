"""Garbage in the retry topic."""

from __future__ import annotations

import re
from contextlib import closing

from hypothesis import given
from hypothesis import strategies as st

from kafetrain.core.control import Action, Audit, Control, control_headers
from kafetrain.core.entry import Entry
from kafetrain.core.headers import retry_headers
from kafetrain.deadletter import Filter
from kafetrain.record import MessageId, RetryHeader, TopicPartition
from tests.fuzz.damage import GROUP, TOPIC, Pairs, any_headers, nullable, numbers
from tests.fuzz.garbage import NOWHERE, Fuzzed, Step, run, steps_with

__all__ = ["retry_topics"]


def _headers_of(offset: int, own: Pairs, *, group: str = GROUP, topic: str = TOPIC, lock: int = -1) -> Pairs:
    id = MessageId(group, topic, 0, NOWHERE + offset)
    entry = Entry(None, attempt=offset, due_ms=offset)
    return retry_headers(id, own, timestamp_ms=offset, entry=entry, max_retries=None, lock_offset=lock)


def _with(headers: Pairs, name: str, value: bytes | None) -> Pairs:
    kept = [pair for pair in headers if pair[0] != name]
    return kept if value is None else [*kept, (name, value)]


_own = any_headers.map(lambda headers: [pair for pair in headers if pair[0] != RetryHeader.ID])
_no_numbers = numbers.filter(lambda text: not re.fullmatch("-?[0-9]{1,19}", text) or abs(int(text)) >= 2**63)
_broken = st.builds(
    lambda offset, own, change: _with(_headers_of(offset, own), *change),
    st.integers(0, 9),
    _own.map(lambda headers: [pair for pair in headers if not pair[0].startswith("x-retry-")]),
    st.one_of(
        st.tuples(st.just(RetryHeader.LOCK_OFFSET), _no_numbers.map(str.encode) | st.none()),
        st.tuples(st.just(RetryHeader.ID), st.sampled_from([b"", b"\xff", b"g/orders/0", b"g/orders/0/-1", b"////"])),
        st.tuples(st.sampled_from([RetryHeader.DUE, RetryHeader.ATTEMPT]), _no_numbers.map(str.encode)),
        st.tuples(st.just(RetryHeader.CONTROL), st.just(b"\xff")),
    ),
)
_others = st.builds(
    lambda offset, own, whose, lock: _headers_of(offset, own, group=whose[0], topic=whose[1], lock=lock),
    st.integers(0, 9),
    any_headers,
    st.sampled_from([("other", TOPIC), (GROUP, "other"), ("a/b", TOPIC)]),
    st.sampled_from([-1, 0, 2**63 - 1]),
)
_ended = st.builds(_headers_of, st.integers(0, 9), any_headers)
_too_late = st.builds(
    lambda action, offset, at_ms, dead_at: control_headers(
        Control(action, MessageId(GROUP, TOPIC, 0, NOWHERE + offset), -1, Audit("c", "me", at_ms), dead_at)
    ),
    st.sampled_from(list(Action)),
    st.integers(0, 9),
    st.integers(-1, 2**62),
    st.none() | st.tuples(st.sampled_from([0, 1, 2, 2**31 - 1]), st.sampled_from([0, 1, NOWHERE, 2**63 - 1])),
)


def _in_retry(headers: st.SearchStrategy[Pairs], *, counts: bool) -> st.SearchStrategy[Step]:
    return st.builds(
        lambda key, value, headers, partition: (
            lambda sim: sim.put(sim.names.retry, key, value, headers, partition, counts=counts)
        ),
        nullable,
        nullable,
        headers,
        st.integers(0, 1),
    )


_not_retries = _in_retry(_own | _broken, counts=True)


@given(steps_with(_not_retries | _not_retries | _in_retry(_others | _ended | _too_late, counts=False)))
def retry_topics(steps: list[Step]) -> None:
    with closing(Fuzzed()) as sim:
        run(steps, sim)
        with sim.operator() as letters:
            found = [(letter.id, letter) for letter in letters.scan(Filter(states=["malformed"]))]
        dead = {(id.partition, id.offset): letter for id, letter in found if id is not None}
        for record in sim.cluster.read(sim.names.retry):
            if record.offset in sim.garbage[TopicPartition(record.topic, record.partition)]:
                letter = dead[record.partition, record.offset]
                assert (letter.key, letter.value, letter.headers) == (record.key, record.value, tuple(record.headers))
