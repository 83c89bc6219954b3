"""Middlewares around a handler; those with nothing to do for a success are not called for one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kafetrain.consumer.middleware import compose_for_successes
from kafetrain.handlers import NoOutcome
from kafetrain.record import Handler
from kafetrain.tracker.state import Claim, Side


class Seen:
    """A middleware that notes what it was called for, and what came of it."""

    def __init__(self, *, skips_successes: bool) -> None:
        self.skips_successes = skips_successes
        self.results: list[object] = []

    def __call__(self, record: Any, call_next: Handler) -> object:
        try:
            result = call_next(record)
        except Exception as error:
            self.results.append(type(error).__name__)
            raise
        self.results.append(result)
        return result


class Locked:
    released = False

    def is_calm(self) -> bool:
        return False


LOCKED: Any = Locked()
PREPARED: Any = None
RECORD: Any = SimpleNamespace(topic="t", partition=0, offset=0)


def test_a_success_skips_middlewares_that_ask_for_it() -> None:
    quiet = Seen(skips_successes=True)
    ran: list[Any] = []
    call = compose_for_successes([quiet], ran.append, None)
    assert call(RECORD) is None
    assert ran == [RECORD]
    assert quiet.results == []


def test_one_middleware_that_wants_each_record_brings_all_back() -> None:
    quiet, eager = Seen(skips_successes=True), Seen(skips_successes=False)
    compose_for_successes([quiet, eager], lambda record: None, None)(RECORD)
    assert quiet.results == eager.results == [None]


def test_locks_in_the_partition_bring_all_back() -> None:
    quiet = Seen(skips_successes=True)
    compose_for_successes([quiet], lambda record: None, LOCKED)(RECORD)
    assert quiet.results == [None]


def test_a_failure_runs_the_handler_once_and_the_middlewares_see_it() -> None:
    quiet = Seen(skips_successes=True)
    ran: list[Any] = []

    def failing(record: Any) -> None:
        ran.append(record)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        compose_for_successes([quiet], failing, None)(RECORD)
    assert ran == [RECORD]
    assert quiet.results == ["ValueError"]


def test_a_result_is_passed_through_the_middlewares() -> None:
    quiet = Seen(skips_successes=True)
    assert compose_for_successes([quiet], lambda record: "done", None)(RECORD) == "done"
    assert quiet.results == ["done"]


def test_what_is_no_exception_goes_straight_up() -> None:
    def stop(record: Any) -> None:
        raise KeyboardInterrupt

    quiet = Seen(skips_successes=True)
    with pytest.raises(KeyboardInterrupt):
        compose_for_successes([quiet], stop, None)(RECORD)
    assert quiet.results == []


def test_a_failure_after_the_partition_went_away_has_no_outcome() -> None:
    """It may be ours again by now, under a new claim: the failure is not that one's."""
    claim = Claim(Side.SOURCE, PREPARED, 0, None, ready=True)

    def failing(record: Any) -> None:
        claim.released = True
        raise ValueError("too late")

    with pytest.raises(NoOutcome):
        compose_for_successes([Seen(skips_successes=True)], failing, claim)(RECORD)
