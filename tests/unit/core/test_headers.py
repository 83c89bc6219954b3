"""Headers: the record's own survive in order, ours follow in one block."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafetrain.core.entry import Entry
from kafetrain.core.headers import Malformed, decode_retry, dlq_headers, retry_headers
from kafetrain.record import MessageId, RetryHeader

ID = MessageId("billing", "orders", 3, 12)
own_headers = st.lists(
    st.tuples(
        st.text(max_size=8) | st.sampled_from(["x-retry-id", "x-retry-attempt", "trace"]),
        st.none() | st.binary(max_size=8),
    ),
    max_size=6,
)


def record(headers: Any) -> Any:
    return SimpleNamespace(
        topic="retry-orders", partition=3, offset=1, key=b"k", value=b"v", headers=headers, timestamp=99
    )


def sent(own: Any, **changed: Any) -> Any:
    entry = Entry(b"k", attempt=2, due_ms=500, error="why", error_type="ValueError")
    arguments = {"timestamp_ms": 7, "entry": entry, "max_retries": 5, "lock_offset": 40, **changed}
    return retry_headers(ID, own, **arguments)


@given(own_headers)
def test_a_records_own_headers_come_back_as_they_were(own: Any) -> None:
    headers = sent(own)
    assert all(value is not None for _, value in headers)  # clients refuse null values
    info = decode_retry(record(headers))
    assert list(info.user_headers) == own
    assert (info.id, info.timestamp_ms, info.attempt, info.due_ms, info.lock_offset) == (ID, 7, 2, 500, 40)


def test_headers_that_something_added_on_the_way_are_the_records_own() -> None:
    headers = [*sent([("a", b"1")]), ("traceparent", b"00")]
    assert list(decode_retry(record(headers)).user_headers) == [("a", b"1"), ("traceparent", b"00")]


def test_a_handlers_view_keeps_null_values() -> None:
    assert sent([("a", None)], nulls_as_empty=False)[0] == ("a", None)


def without(name: str) -> Any:
    return [pair for pair in sent([]) if pair[0] != name]


def replaced(name: str, value: bytes) -> Any:
    return [(key, value if key == name else old) for key, old in sent([])]


@pytest.mark.parametrize(
    "headers",
    [
        None,
        [],
        [("a", b"1")],
        without(RetryHeader.ID),
        without(RetryHeader.LOCK_OFFSET),
        replaced(RetryHeader.ID, b"\xff"),
        replaced(RetryHeader.ID, b"no id"),
        replaced(RetryHeader.LOCK_OFFSET, b"soon"),
        replaced(RetryHeader.ATTEMPT, b"1.5"),
        replaced(RetryHeader.DUE, b"9" * 30),
    ],
)
def test_what_is_no_retry_record_is_malformed(headers: Any) -> None:
    with pytest.raises(Malformed):
        decode_retry(record(headers))


@given(own_headers)
def test_a_dead_letter_keeps_the_records_own_headers_first(own: Any) -> None:
    headers = dlq_headers(
        ID,
        own,
        state="exhausted",
        attempts=3,
        error_type="E",
        reason="r" * 5000,
        now_ms=1,
        first_failure_ms=None,
        source_timestamp_ms=77,
    )
    assert [(k, v) for k, v in headers[: len(own)]] == [(k, v or b"") for k, v in own]
    ours = dict(headers[len(own) :])
    assert ours["x-dlq-id"] == b"billing/orders/3/12"
    assert ours["x-dlq-state"] == b"exhausted"
    assert len(ours["x-dlq-reason"] or b"") == 1024
    assert "x-dlq-first-failure" not in ours
