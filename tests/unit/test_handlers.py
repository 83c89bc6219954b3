"""Handlers: what is refused before any record is consumed, and what a result means."""

from __future__ import annotations

from concurrent.futures import Future
from functools import partial
from typing import Any

import pytest

from kafetrain import ConfigurationError, NotRetriableError
from kafetrain.handlers import NoOutcome, check_handler, future_of, has_no_outcome


async def coroutine_function(record: Any) -> None: ...


class AsyncCallable:
    async def __call__(self, record: Any) -> None: ...


@pytest.mark.parametrize("handler", [None, 7, "orders"])
def test_what_is_not_callable_is_refused(handler: object) -> None:
    with pytest.raises(ConfigurationError, match="must be callable"):
        check_handler(handler)


@pytest.mark.parametrize("handler", [coroutine_function, AsyncCallable(), partial(coroutine_function)])
def test_a_coroutine_function_is_refused_with_what_to_do_instead(handler: object) -> None:
    with pytest.raises(ConfigurationError, match="run_coroutine_threadsafe"):
        check_handler(handler)


@pytest.mark.parametrize("handler", [print, partial(print, "x"), type("C", (), {"__call__": lambda s, r: None})()])
def test_anything_callable_will_do(handler: object) -> None:
    check_handler(handler)


def test_a_future_decides_and_other_results_are_success() -> None:
    future: Future[None] = Future()
    assert future_of(future) is future
    assert future_of("whatever") is None


def test_an_awaitable_that_nobody_awaits_is_a_failure_for_good() -> None:
    with pytest.raises(NotRetriableError, match="nobody awaits"):
        future_of(coroutine_function(None))


def test_a_future_called_off_or_left_has_no_outcome() -> None:
    called_off: Future[None] = Future()
    called_off.cancel()
    left: Future[None] = Future()
    left.set_exception(NoOutcome())
    failed: Future[None] = Future()
    failed.set_exception(ValueError())
    assert [has_no_outcome(future) for future in (called_off, left, failed)] == [True, True, False]
