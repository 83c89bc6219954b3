"""Handlers that take a model: what they are called with, and what becomes of a payload that is none."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from kafetrain import ConfigurationError, NotRetriableError, Record, json_of
from kafetrain.app.payload import typed
from tests.unit.records import record


class Line(BaseModel):
    sku: str


class Order(BaseModel):
    number: int
    lines: list[Line] = []

    @field_validator("number")
    @classmethod
    def _positive(cls, value: int) -> int:
        if value < 0:
            raise ValueError(f"secret {value}")
        return value


def one(order: Order) -> Order:
    return order


def test_a_model_is_read_from_json_and_the_record_comes_second() -> None:
    def both(order: Order, at: Record) -> tuple[Order, Record]:
        return order, at

    given = record(value=b'{"number": 7}')
    assert typed(one)(given) == Order(number=7)
    assert typed(both)(given) == (Order(number=7), given)


def test_a_plain_handler_stays_as_it_is() -> None:
    def plain(record: Record) -> None: ...

    class Callable:
        def __call__(self, record: Record) -> None: ...

    for handler in (plain, print, Callable(), partial(plain), lambda record: None, lambda record, times=1: None):
        assert typed(handler) is handler


def test_methods_and_callable_objects_may_take_models_too() -> None:
    class Service:
        def handle(self, order: Order) -> int:
            return order.number

        def __call__(self, order: Order, record: Record) -> int:
            return order.number + record.offset

    given = record(value=b'{"number": 7}', offset=1)
    assert typed(Service().handle)(given) == 7
    assert typed(Service())(given) == 8


def test_a_union_with_a_model_is_a_model() -> None:
    def either(order: Order | None) -> Order | None:
        return order

    assert typed(either)(record(value=b'{"number": 7}')) == Order(number=7)
    assert typed(either)(record(value=None)) is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b'{"number": "x"}', "number: input should be a valid integer"),
        (b'{"number": 1, "lines": [{"sku": "a"}, {}]}', "lines.1.sku: field required"),
        (b'{"number": -5}', "number: its validator refuses it"),
        (b"not json", "the whole: it is no JSON"),
        (b"\xff\xfe", "the whole: it is no JSON"),
        (None, "the whole: input should be a valid dictionary"),
    ],
)
def test_an_invalid_payload_is_not_retriable_and_says_which_field_and_quotes_no_value(
    value: bytes | None, said: str
) -> None:
    with pytest.raises(NotRetriableError) as caught:
        typed(one)(record(value=value, offset=3))
    text = str(caught.value)
    assert text.startswith("orders[0]@3: its payload is not what the handler takes: ")
    assert said in text
    assert "secret" not in text
    assert "not json" not in text
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


def test_decode_stands_before_the_handler_and_before_the_model() -> None:
    def words(text: str) -> list[str]:
        return text.split()

    def both(text: str, at: Record) -> str:
        return f"{text}@{at.offset}"

    given = record(value=b"a b")
    assert typed(words, decode=bytes.decode)(given) == ["a", "b"]
    assert typed(both, decode=bytes.decode)(given) == "a b@0"
    assert typed(one, decode=lambda value: {"number": len(value)})(given) == Order(number=3)
    assert typed(one, decode=lambda value: Order(number=1))(given) == Order(number=1)
    with pytest.raises(NotRetriableError, match=r"orders\[0\]@0: its payload cannot be decoded: UnicodeDecodeError$"):
        typed(words, decode=bytes.decode)(record(value=b"\xff"))


def test_what_can_be_called_with_neither_is_refused() -> None:
    def three(order: Order, record: Record, more: Any) -> None: ...
    def nothing() -> None: ...
    def two(order: dict[str, Any], record: Record) -> None: ...
    async def later(order: Order) -> None: ...

    for handler in (three, nothing, two, later, 7):
        with pytest.raises(ConfigurationError):
            typed(handler)  # type: ignore[arg-type]  # the mistake that is tested
    with pytest.raises(ConfigurationError, match="decode must be callable"):
        typed(one, decode="avro")  # type: ignore[arg-type]  # the mistake that is tested


def test_json_of_serves_without_a_model() -> None:
    assert typed(json_of)(record(value=b"[1]")) == [1]
