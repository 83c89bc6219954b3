"""Apps in memory: what a test of an application sees is what would happen on Kafka."""

from __future__ import annotations

import re
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from kafetrain import App, ConstantBackoff, NotRetriableError, Record, get_retry_attempt
from kafetrain.errors import FatalError


class Order(BaseModel):
    number: int


def app(**settings: Any) -> App:
    return App(group_id="billing", bootstrap_servers="127.0.0.1:1", **settings)


def test_retries_keep_the_order_and_their_waits_are_left_out() -> None:
    one, seen = app(backoff=ConstantBackoff(timedelta(hours=1))), list[tuple[int, int]]()

    @one.handler("orders")
    def charge(order: Order, record: Record) -> None:
        seen.append((order.number, get_retry_attempt(record)))
        if order.number == 1 and get_retry_attempt(record) < 3:
            raise ConnectionError

    with one.test_client() as client:
        for number in (1, 2):
            client.publish("orders", {"number": number}, key="ann")
        client.publish("orders", Order(number=3), key="bob")
        client.run_until_idle()
        assert [number for number, _ in seen if number != 3] == [1, 1, 1, 1, 2]
        assert (3, 0) in seen
        assert client.dead_letters("orders") == []
        client.publish("orders", b'{"number": 4}', key="ann")
        client.run_until_idle()
        assert seen[-1] == (4, 0)


def test_what_is_given_up_is_a_dead_letter_and_its_key_stands_still() -> None:
    one, told = app(), list[tuple[bytes | None, str]]()
    one.on_dead_letter(lambda record, error: told.append((record.value, type(error).__name__)))

    @one.handler("orders")
    def charge(order: Order) -> None:
        if order.number == 1:
            raise NotRetriableError("no such account")

    with one.test_client() as client:
        client.publish("orders", {"number": 1}, key="ann")
        client.publish("orders", {"number": 2}, key="ann")
        client.publish("orders", {"count": 3}, key="bob")
        client.run_until_idle()
        dead = [dict(letter.headers) for letter in client.dead_letters("orders")]
    assert [letter["x-dlq-state"] for letter in dead].count(b"parked") == 1
    reasons = [letter.get("x-dlq-reason") or b"" for letter in dead]
    assert any(reason.endswith(b"number: field required") for reason in reasons)
    assert b"no such account" in reasons
    assert (b'{"number": 1}', "NotRetriableError") in told


def test_handlers_feed_each_other_and_hooks_and_middlewares_are_the_apps_own() -> None:
    one, told = app(topics="orders"), list[str]()
    invoices = one.publisher("invoices-de")
    one.on_start(lambda: told.append("start"))
    one.on_stop(lambda: told.append("stop"))

    def around(record: Record, call_next: Any) -> object:
        told.append(record.topic)
        return call_next(record)

    one.use(around)

    @one.handler()
    def charge(order: Order) -> None:
        invoices.publish({"for": order.number}, key="k", headers={"h": "v"})
        invoices.publish_async(b"x", callback=lambda metadata, error: told.append(f"at {metadata and metadata.offset}"))

    @one.handler("audit", retry=False)
    def audit(record: Record) -> None:
        told.append(f"audited {record.value!r}")

    with one.test_client() as client:
        client.publish("orders", {"number": 1})
        client.publish("audit", "seen")
        client.run_until_idle()
        first, second = client.published("invoices-de")
        assert (first.key, first.value, list(first.headers)) == (b"k", b'{"for": 1}', [("h", b"v")])
        assert second.value == b"x"
    assert told[0] == "start"
    assert told[-1] == "stop"
    assert sorted(told[1:-1]) == ["at 1", "audit", "audited b'seen'", "orders"]


def test_patterns_find_what_was_published_before() -> None:
    one, seen = app(), list[str]()
    one.handler("orders-*")(lambda record: seen.append(record.topic))
    with one.test_client() as client:
        client.publish("orders-de", b"1")
        client.publish("orders-fr", b"1")
        client.run_until_idle()
    assert sorted(seen) == ["orders-de", "orders-fr"]


def test_an_app_runs_in_memory_as_often_as_there_are_tests() -> None:
    one, seen = app(), list[bytes]()
    one.handler("orders")(lambda record: seen.append(record.value))
    for _ in range(2):
        with one.test_client() as client:
            client.publish("orders", b"x")
            client.run_until_idle()
    assert seen == [b"x", b"x"]


def test_with_auto_commit_what_fails_is_idle_too() -> None:
    one = app(auto_commit=True)

    @one.handler("orders", retry=False)
    def fail(record: Record) -> None:
        raise ConnectionError

    with one.test_client() as client:
        client.publish("orders", b"x")
        client.run_until_idle()


def test_what_does_not_end_is_said_and_so_is_what_ended_the_app() -> None:
    one, released = app(shutdown_timeout="100ms"), threading.Event()

    @one.handler("orders")
    def wait(record: Record) -> None:
        released.wait(10)

    with one.test_client() as client:
        client.publish("orders", b"x")
        with pytest.raises(AssertionError, match=r"not idle within 0\.2 s: records of orders have not been handled"):
            client.run_until_idle(0.2)
        released.set()
    two = app()

    def break_down(record: Record, call_next: Any) -> object:
        raise FatalError("broken")

    two.use(break_down)
    two.handler("orders")(print)
    broken = two.test_client()
    broken.publish("orders", b"x")
    with pytest.raises(FatalError, match="broken"):
        broken.run_until_idle()
    with pytest.raises(FatalError, match="broken"):
        broken.close()


def test_the_test_that_the_documentation_shows_passes() -> None:
    page = (Path(__file__).parents[3] / "docs" / "pages" / "app.md").read_text()
    found = re.search(r"```python\n(from kafetrain import App, NotRetriableError.*?)```", page, re.DOTALL)
    assert found is not None
    shown: dict[str, Any] = {}
    exec(compile(found[1], "app.md", "exec"), shown)
    shown["test_an_order_without_account_is_given_up"]()
