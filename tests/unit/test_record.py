"""Records: typed views, and what retried ones tell."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kafetrain import (
    Record,
    as_record,
    get_original_topic,
    get_retry_attempt,
    get_retry_reason,
    is_retry_message,
    json_of,
    text_of,
)
from kafetrain.record import decimal


def record(value: Any = b"{}", headers: Any = ()) -> Any:
    return SimpleNamespace(topic="t", partition=0, offset=5, key=b"k", value=value, headers=headers, timestamp=1)


def test_a_record_that_never_failed() -> None:
    plain = record()
    assert (is_retry_message(plain), get_retry_attempt(plain), get_retry_reason(plain)) == (False, 0, None)
    assert get_original_topic(plain) == "t"


def test_a_retried_record_tells_its_story() -> None:
    headers = [
        ("x-retry-id", b"g/orders/0/5"),
        ("x-retry-topic", b"orders"),
        ("x-retry-attempt", b"2"),
        ("x-retry-reason", b"no"),
    ]
    retried = record(headers=headers)
    assert (is_retry_message(retried), get_retry_attempt(retried), get_retry_reason(retried)) == (True, 2, "no")
    assert get_original_topic(retried) == "orders"


def test_damaged_headers_do_no_harm() -> None:
    damaged = record(headers=[("x-retry-attempt", b"many"), ("x-retry-reason", b"\xff"), ("x-retry-id", None)])
    assert (get_retry_attempt(damaged), get_retry_reason(damaged), is_retry_message(damaged)) == (0, None, False)


@pytest.mark.parametrize("digits", ["²", "٣", "-1", "1_0", "9" * 19, "9" * 5000])
def test_an_attempt_that_no_number_of_kafkas_is_counts_as_none(digits: str) -> None:
    assert get_retry_attempt(record(headers=[("x-retry-attempt", digits.encode())])) == 0


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), (b"007", 7), ("9223372036854775807", 2**63 - 1), ("9223372036854775808", None), ("9" * 5000, None)]
    + [(text, None) for text in ("", b"", "-1", "+1", " 1", "1\n", "1_0", "1e3", "²", "٣", b"\xb2")],
)
def test_decimal_reads_the_numbers_that_kafka_has(text: str | bytes, number: int | None) -> None:
    assert decimal(text) == number


def test_values_as_text_and_json() -> None:
    assert text_of(record("é".encode())) == "é"
    assert json_of(record(b'{"a": [1]}')) == {"a": [1]}
    with pytest.raises(ValueError, match="tombstone"):
        json_of(record(None))
    with pytest.raises(UnicodeDecodeError):
        text_of(record(b"\xff"))


class ConfluentMessage:
    """The methods of a confluent-kafka message."""

    def __init__(self, error: object = None) -> None:
        self._error = error

    def error(self) -> object:
        return self._error

    def topic(self) -> str:
        return "orders"

    def partition(self) -> int:
        return 3

    def offset(self) -> int:
        return 12

    def key(self) -> bytes:
        return b"k"

    def value(self) -> bytes:
        return b"v"

    def headers(self) -> list[tuple[str, bytes]]:
        return [("a", b"1")]

    def timestamp(self) -> tuple[int, int]:
        return (1, 99)


def test_confluent_kafkas_messages_are_adapted() -> None:
    adapted = as_record(ConfluentMessage())
    assert isinstance(adapted, Record)
    assert (adapted.topic, adapted.partition, adapted.offset, adapted.timestamp) == ("orders", 3, 12, 99)
    assert (adapted.key, adapted.value, list(adapted.headers)) == (b"k", b"v", [("a", b"1")])


def test_records_pass_as_they_are_and_other_things_are_refused() -> None:
    plain = record()
    assert as_record(plain) is plain
    with pytest.raises(TypeError, match="has no headers"):
        as_record(SimpleNamespace(topic="t"))
    with pytest.raises(TypeError, match="carries an error"):
        as_record(ConfluentMessage(error="broker down"))
