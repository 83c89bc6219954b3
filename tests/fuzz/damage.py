"""What may stand in a topic: noise, what is almost right, and what was right until something was changed in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeAlias, TypeVar

from hypothesis import strategies as st

from kafetrain.core.control import Action, Audit, Control, control_headers
from kafetrain.core.entry import Entry, encode_entry
from kafetrain.core.headers import DeadLetterState, dlq_headers, retry_headers
from kafetrain.record import DlqHeader, MessageId, RetryHeader
from kafetrain.testing.simulated.log import SimulatedRecord

__all__ = [
    "CANARY",
    "GROUP",
    "TOPIC",
    "any_bytes",
    "any_headers",
    "any_text",
    "dead_letter_headers",
    "evenly",
    "id_texts",
    "nullable",
    "numbers",
    "record",
    "redirect_keys",
    "redirect_values",
    "retry_record_headers",
]

T = TypeVar("T")


def evenly(*choices: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """Each as often as the others; `|` gives a choice of five things five times the weight of one thing."""
    return st.sampled_from(choices).flatmap(lambda choice: choice)


GROUP, TOPIC = "g", "orders"

Pairs: TypeAlias = "list[tuple[str, bytes | None]]"

CANARY = "card-4711"
"""A payload's text: it may be in no log event."""

_ODD = [b"", b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"{", CANARY.encode()]
any_bytes = st.binary(max_size=40) | st.sampled_from(_ODD)
nullable = st.none() | any_bytes
any_text = st.text(max_size=12) | st.just(CANARY)

numbers = st.sampled_from(
    ["0", "1", "-1", "-0", "007", "2147483648", "9223372036854775807", "9223372036854775808", "9" * 19, "9" * 20]
    + ["9" * 5000, "-" + "9" * 5000, "\u0663", "\u00b2", "1_0", "+1", " 1", "1\n", "1e3", "1.0", "0x1", "", "true"]
) | st.integers(-5, 30).map(str)

_id_parts = st.sampled_from([GROUP, TOPIC, "other", "group", "", "%2F", "g%2Fh"]) | numbers | any_text
_groups, _topics = st.sampled_from([GROUP, "other"]), st.sampled_from([TOPIC, "x"])
id_texts = (
    st.lists(_id_parts, max_size=6).map("/".join)
    | st.builds("{}/{}/{}/{}".format, _groups, _topics, numbers, numbers)
    | st.builds("group/{}".format, st.sampled_from([GROUP, "other", "a/b", ""]) | any_text)
)


def _cut_up(parts: tuple[bytes, int, int, bytes]) -> bytes:
    """Bytes with a piece of them replaced."""
    whole, at, length, piece = parts
    at = at % (len(whole) + 1)
    return whole[:at] + piece + whole[at + length :]


def damaged(whole: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.tuples(whole, st.integers(0, 400), st.integers(0, 9), st.binary(max_size=4)).map(_cut_up)


# The redirect topic

redirect_keys = nullable | id_texts.map(lambda text: text.encode("utf-8", "replace"))

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text | numbers | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=4,
)
"""What JSON can say: numbers that are none, and halves of characters, included."""

_entries = st.builds(
    Entry,
    nullable,
    attempt=st.integers(0, 2**63 - 1),
    due_ms=st.integers(0, 2**63 - 1),
    first_failure_ms=st.none() | st.integers(0, 2**63 - 1),
    error_type=st.none() | any_text,
    error=any_text,
    dead_at=st.none() | st.tuples(st.integers(0, 9), st.integers(0, 2**63 - 1)),
    atomic=st.booleans(),
).map(encode_entry)

_FIELDS = ["v", "key", "state", "attempt", "due", "first_failure", "error_type", "error", "dlq_partition", "dlq_offset"]
_ALMOST = {"v": 1, "key": "YQ==", "state": "pending", "attempt": 1, "due": 1, "first_failure": None}


def _as_json(fields: object) -> bytes:
    return json.dumps(fields).encode()


_almost_entries = st.builds(
    lambda changes, dropped: _as_json({n: v for n, v in {**_ALMOST, **changes}.items() if n not in dropped}),
    st.dictionaries(st.sampled_from(_FIELDS), json_values, max_size=3),
    st.sets(st.sampled_from(_FIELDS), max_size=1),
)
_registrations = st.fixed_dictionaries({}, optional=dict.fromkeys(("v", "topic", "topic_id", "since"), json_values))

redirect_values = (
    nullable
    | _entries
    | damaged(_entries)
    | _almost_entries
    | json_values.map(_as_json)
    | _registrations.map(_as_json)
    | st.sampled_from([b"[" * 100_000, b'{"v":' + b"9" * 5000 + b"}", b'{"v":1e400}', b'{"v":1,"v":2}'])
)

# Headers


def _names(catalogue: type) -> list[str]:
    return sorted(value for name, value in vars(catalogue).items() if name.isupper())


_texts = st.sampled_from(["9" * 5000, "1/" + "9" * 5000, "0/1", "0/x"]) | numbers | id_texts | any_text
_header_values = nullable | _texts.map(lambda text: text.encode("utf-8", "replace"))

any_headers: st.SearchStrategy[Pairs] = st.lists(
    st.tuples(st.sampled_from(_names(RetryHeader) + _names(DlqHeader)) | any_text, _header_values), max_size=8
)

_ids = st.builds(
    MessageId,
    st.sampled_from([GROUP, "other", "a/b"]),
    st.sampled_from([TOPIC, "x"]),
    st.integers(0, 3),
    st.integers(0, 2**63 - 1),
)
_times = st.integers(-1, 2**63 - 1)
_good_retry_headers = st.builds(
    lambda id, own, entry, at, lock: retry_headers(
        id, own, timestamp_ms=at, entry=Entry(None, attempt=entry, due_ms=at), max_retries=3, lock_offset=lock
    ),
    _ids,
    any_headers,
    st.integers(0, 9),
    _times,
    _times,
)
_good_control_headers = st.builds(
    lambda action, id, lock, audit, dead_at: control_headers(Control(action, id, lock, audit, dead_at)),
    st.sampled_from([action.value for action in Action]) | any_text,
    _ids,
    _times,
    st.builds(Audit, any_text, any_text, _times, st.none() | any_text, st.none() | any_text),
    st.none() | st.tuples(st.integers(0, 9), st.integers(0, 99)),
)
_states = st.sampled_from([v for n, v in vars(DeadLetterState).items() if n.isupper()]) | any_text
_good_dead_letter_headers = st.builds(
    lambda id, own, state, at, text: dlq_headers(
        id,
        own,
        state=state,
        attempts=1,
        error_type=text,
        reason=text,
        now_ms=at,
        first_failure_ms=at,
        source_timestamp_ms=at,
        topic_id=text,
    ),
    _ids,
    any_headers,
    _states,
    _times,
    any_text,
)


def _with_changes(parts: tuple[Pairs, Sequence[tuple[str, str, bytes | None]]]) -> Pairs:
    """Headers of which some are gone, have another value, or are there once more."""
    headers, changes = list(parts[0]), parts[1]
    for how, name, value in changes:
        if how != "repeat":
            headers = [pair for pair in headers if pair[0] != name]
        if how != "drop":
            headers.append((name, value))
    return headers


_NUMBERS = ("ATTEMPT", "ATTEMPTS", "AT", "DUE", "FIRST_FAILURE", "LOCK_OFFSET", "SOURCE_TIMESTAMP", "TIMESTAMP")


def _changed(headers: st.SearchStrategy[Pairs], names: type) -> st.SearchStrategy[Pairs]:
    how = st.sampled_from(["drop", "change", "repeat"])
    numeric = sorted(value for name, value in vars(names).items() if name in _NUMBERS)
    change = st.tuples(how, st.sampled_from(_names(names)), _header_values) | st.tuples(
        st.just("change"), st.sampled_from(numeric), numbers.map(str.encode)
    )
    return st.tuples(headers, st.lists(change, max_size=3)).map(_with_changes)


retry_record_headers = (
    any_headers | _changed(_good_retry_headers, RetryHeader) | _changed(_good_control_headers, RetryHeader)
)
dead_letter_headers = any_headers | _changed(_good_dead_letter_headers, DlqHeader)


def record(
    key: bytes | None = b"k", value: bytes | None = b"v", headers: Any = (), *, topic: str = TOPIC, offset: int = 0,
    timestamp: int = 0,
) -> SimulatedRecord:  # fmt: skip
    return SimulatedRecord(topic, 0, offset, key, value, tuple(headers), timestamp)
