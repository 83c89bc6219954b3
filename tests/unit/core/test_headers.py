"""Headers: the record's own survive in order, ours follow in one block."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafetrain.core.dead_letter import decode_dead_letter
from kafetrain.core.entry import MOST_ATTEMPTS, Entry
from kafetrain.core.headers import Malformed, decode_retry, dlq_headers, place_in_log, retry_headers
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
        replaced(RetryHeader.DUE, b"9223372036854775808"),
        replaced(RetryHeader.DUE, "²".encode()),
        replaced(RetryHeader.LOCK_OFFSET, b"--1"),
        [*sent([]), (RetryHeader.CONTROL, b"replay"), (RetryHeader.DEAD_AT, "0/²".encode())],
        [*sent([]), (RetryHeader.CONTROL, b"replay"), (RetryHeader.DEAD_AT, b"2147483648/1")],
    ],
)
def test_what_is_no_retry_record_is_malformed(headers: Any) -> None:
    with pytest.raises(Malformed):
        decode_retry(record(headers))


def test_attempts_beyond_all_bounds_leave_room_to_count_on() -> None:
    assert decode_retry(record(replaced(RetryHeader.ATTEMPT, b"9223372036854775807"))).attempt == MOST_ATTEMPTS
    assert decode_retry(record(replaced(RetryHeader.ATTEMPT, b"-7"))).attempt == 0


def test_the_list_of_null_headers_may_hold_anything() -> None:
    headers = [("a", b""), ("b", b""), *sent([]), (RetryHeader.NULL_HEADERS, f"x,²,{'9' * 5000},1".encode())]
    assert list(decode_retry(record(headers)).user_headers) == [("a", b""), ("b", None)]


@pytest.mark.parametrize(
    ("text", "place"),
    [("0/1", (0, 1)), ("2147483647/9223372036854775807", (2**31 - 1, 2**63 - 1))]
    + [(text, None) for text in ("", "0", "/", "0/", "/1", "0/1/2", "0/-1", "²/1", "2147483648/0", f"0/{'9' * 5000}")],
)
def test_a_place_in_a_log_is_two_numbers_that_kafka_has(text: str, place: tuple[int, int] | None) -> None:
    assert place_in_log(text) == place


@pytest.mark.parametrize("text", ["²/1", f"1/{'9' * 5000}", "1"])
def test_damaged_numbers_of_a_dead_letter_are_taken_as_not_there(text: str) -> None:
    ours = [("x-dlq-id", str(ID).encode()), ("x-dlq-attempts", "²".encode()), ("x-dlq-replayed", text.encode())]
    info = decode_dead_letter(record(ours))
    assert (info.id, info.attempts, info.replayed) == (ID, 0, None)


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
