"""What ends an instance on purpose: what a newer version has written, a log that ends before a lock, another topic.

A well-formed record of ours that is a lie is believed: who may write there is for ACLs to say.
"""

from __future__ import annotations

import json
from contextlib import closing

from hypothesis import given
from hypothesis import strategies as st

from kafetrain.core.control import Audit, Control, control_headers
from kafetrain.core.entry import Entry, encode_entry
from kafetrain.core.headers import retry_headers
from kafetrain.errors import ConfigurationError, FatalError, KafetrainError, LogTruncatedError, NewerFormatError
from kafetrain.record import MessageId
from tests.fuzz.damage import GROUP, TOPIC
from tests.fuzz.garbage import NOWHERE, Fuzzed, Step, real

__all__ = ["on_purpose"]


def _newer(sim: Fuzzed) -> None:
    value = json.dumps({**json.loads(encode_entry(Entry(b"z"))), "v": 2}).encode()
    sim.put(sim.names.redirect, f"{GROUP}/{TOPIC}/0/{NOWHERE}".encode(), value, (), 0, counts=False)


def _unknown_control(sim: Fuzzed) -> None:
    control = Control("dance", MessageId(GROUP, TOPIC, 0, NOWHERE), -1, Audit("c", "me", 0))
    sim.put(sim.names.retry, b"z", b"", control_headers(control), 0, counts=False)


def _truncated(sim: Fuzzed) -> None:
    id, entry = MessageId(GROUP, TOPIC, 0, NOWHERE), Entry(None)
    headers = retry_headers(id, (), timestamp_ms=0, entry=entry, max_retries=None, lock_offset=2**40)
    sim.put(sim.names.retry, b"z", b"", headers, 0, counts=False)


def _other_incarnation(sim: Fuzzed) -> None:
    value = json.dumps({"v": 1, "topic": TOPIC, "topic_id": "another", "since": 0}).encode()
    sim.put(sim.names.redirect, f"group/{GROUP}".encode(), value, (), 0, counts=False)
    sim.restart()


ON_PURPOSE: dict[str, tuple[Step, type[KafetrainError]]] = {
    "an entry of a newer format": (_newer, NewerFormatError),
    "a control record of a newer version": (_unknown_control, FatalError),
    "a lock beyond the end of the log": (_truncated, LogTruncatedError),
    "a registration of a former topic": (_other_incarnation, ConfigurationError),
}


@given(st.sampled_from(sorted(ON_PURPOSE)), st.lists(real, max_size=5))
def on_purpose(name: str, steps: list[Step]) -> None:
    """The instance ends with that error and no other, and what has run by then is none the worse."""
    cause, error = ON_PURPOSE[name]
    with closing(Fuzzed()) as sim:
        for step in steps:
            step(sim)
        sim.flow(3)
        sim.may_end = (error,)
        cause(sim)
        for _ in range(10):
            sim.advance(6)
            sim.flow(4)
        assert type(sim.instance.error) is error
        assert not sim.instances
        sim.check()
