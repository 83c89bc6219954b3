"""Which handler a topic goes to, and which handlers share a consumer."""

from __future__ import annotations

import re
from concurrent.futures import Future
from datetime import timedelta
from typing import Any

import pytest

from kafetrain import App, ConfigurationError, ConstantBackoff, Middleware, Pause, Record
from kafetrain.app import Router
from kafetrain.app.again import InPlace
from kafetrain.app.plan import Planned, plan
from kafetrain.consumer import ErrorHandlingMiddleware
from kafetrain.tracker import ErrorTracker
from tests.unit.records import record


def planned(app: App, *existing: str) -> list[Planned]:
    return plan(app.routes, app.configuration.topics, lambda: existing)


def app(**settings: Any) -> App:
    return App(group_id="g", **settings)


def test_a_router_takes_the_exact_name_first_and_warns_once_of_a_topic_that_nobody_serves(log: list[str]) -> None:
    router = Router(
        {"orders-*": lambda _: "glob", re.compile("orders-.."): lambda _: "compiled", "orders-de": lambda _: "exact"}
    )
    assert [router(record(topic=topic)) for topic in ("orders-de", "orders-fr")] == ["exact", "glob"]
    assert [router(record(topic=topic)) for topic in ("refunds", "refunds", "orders")] == [None] * 3
    assert log == [f"no handler is for topic {name}: its records are skipped" for name in ("refunds", "orders")]


def test_handlers_with_the_same_settings_share_a_consumer() -> None:
    one = app(concurrency=2)
    one.handler("a")(print)
    one.handler("b")(print)
    one.handler("c", max_retries=8)(print)
    one.handler("d", concurrency=2)(print)
    one.handler("e", retry=False)(print)
    consumers = planned(one)
    assert [list(consumer.handlers) for consumer in consumers] == [["a", "b", "d"], ["c"], ["e"]]
    assert [consumer.settings.max_retries for consumer in consumers] == [5, 8, 5]
    assert all(consumer.settings.concurrency == 2 for consumer in consumers)


def test_patterns_find_topics_of_the_cluster_and_no_auxiliary_ones() -> None:
    one = app()
    one.handler("orders-*", "dlq-mine")(print)
    one.handler("orders-de")(len)
    one.handler(re.compile(".*-orders-de"))(repr)
    there = (
        "orders-de",
        "orders-fr",
        "refunds",
        "retry-orders-de",
        "redirect-orders-de",
        "dlq-orders-de",
        "old-orders-de",
    )
    (consumer,) = planned(one, *there)
    assert {topic: handler.__name__ for topic, handler in consumer.handlers.items()} == {
        "orders-de": "len",
        "orders-fr": "print",
        "dlq-mine": "print",
        "old-orders-de": "repr",
    }


def test_the_configured_topics_go_to_the_handler_without_topics_and_patterns_come_first(log: list[str]) -> None:
    one = app(topics=["a", "b", "c-1"])
    one.handler()(print)
    one.handler("b")(len)
    one.handler("c-*")(repr)
    (consumer,) = planned(one)
    assert {topic: handler.__name__ for topic, handler in consumer.handlers.items()} == {
        "b": "len",
        "c-1": "repr",
        "a": "print",
    }
    assert log == []


def test_a_configured_topic_that_nobody_serves_is_skipped_with_a_warning(log: list[str]) -> None:
    one = app(topics="a,b")
    one.handler("a")(print)
    (consumer,) = planned(one)
    assert list(consumer.handlers) == ["a"]
    assert log == ["no handler is for topic b: its records are skipped"]


@pytest.mark.parametrize(
    ("register", "part"),
    [
        (lambda app: None, "the app has no handler"),
        (lambda app: app.handler()(print), "none is left for it: set topics"),
        (lambda app: app.handler("x-*")(print), "no topic of the cluster matches x-"),
    ],
)
def test_an_app_that_would_consume_nothing_does_not_start(register: Any, part: str) -> None:
    one = app()
    register(one)
    with pytest.raises(ConfigurationError, match=part):
        planned(one)


def test_what_cannot_work_is_refused_when_it_is_declared() -> None:
    one = app()
    one.handler("a")(print)
    one.handler()(print)
    mistakes: list[tuple[str, Any]] = [
        ("has a handler already: print", lambda: one.handler("a")),
        ("names a topic twice", lambda: one.handler("b", "b")),
        ("two handlers serve the configured topics", lambda: one.handler()),
        ("a topic is a name", lambda: one.handler("")),
        ("a topic is a name", lambda: one.handler(7)),  # type: ignore[arg-type]  # the mistake that is tested
        ("parentheses", lambda: one.handler(print)),  # type: ignore[arg-type]  # the mistake that is tested
        ("max_retry is unknown", lambda: one.handler("b", max_retry=3)),
        ("coroutine function", lambda: one.handler("b")(coroutine)),
        ("middleware must be callable", lambda: one.use("x")),  # type: ignore[arg-type]  # the mistake that is tested
        ("its own ErrorHandlingMiddleware", lambda: one.use(ErrorHandlingMiddleware(ErrorTracker(one.settings)))),
        ("on_start must be callable", lambda: one.on_start(7)),  # type: ignore[type-var]  # the mistake that is tested
        ("is a pattern, and a record goes to one topic", lambda: one.publisher("x-*")),
        ("a router without routes", lambda: Router({})),
    ]
    for part, mistake in mistakes:
        with pytest.raises(ConfigurationError, match=part):
            mistake()


async def coroutine(record: Record) -> None: ...


def test_what_fails_in_its_place_pauses_its_partition_for_the_backoff() -> None:
    waits = []

    def backoff(attempt: int) -> timedelta:
        waits.append(attempt)
        return timedelta(seconds=attempt)

    in_place = InPlace(backoff, skip_failed=False)
    errors: list[Exception | None] = [ValueError(), ValueError(), None, ValueError()]

    def handle(_: Record) -> None:
        if error := errors.pop(0):
            raise error

    for _ in range(2):
        with pytest.raises(Pause):
            in_place(record(), handle)
    in_place(record(), handle)
    with pytest.raises(Pause):
        in_place(record(), handle)
    assert waits == [1, 2, 1]


def test_a_future_that_fails_pauses_too_and_one_that_is_called_off_has_no_outcome() -> None:
    in_place: Middleware = InPlace(ConstantBackoff(timedelta(0)), skip_failed=False)
    own: Future[None] = Future()
    followed = in_place(record(), lambda _: own)
    assert isinstance(followed, Future)
    own.set_exception(ValueError())
    assert isinstance(followed.exception(0), Pause)
    other: Future[None] = Future()
    followed = in_place(record(), lambda _: other)
    assert isinstance(followed, Future)
    assert followed.cancel()
    assert other.cancelled()
    assert followed.cancelled()


def test_with_auto_commit_what_fails_is_skipped() -> None:
    in_place = InPlace(ConstantBackoff(timedelta(0)), skip_failed=True)

    def fail(_: Record) -> None:
        raise ValueError

    assert in_place(record(), fail) is None
    own: Future[None] = Future()
    followed = in_place(record(), lambda _: own)
    own.set_exception(ValueError())
    assert isinstance(followed, Future)
    assert followed.result(0) is None
