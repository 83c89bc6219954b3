"""Middlewares around a handler; those with nothing to do for a success are not called for one."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace
from typing import Any

import pytest

from kafetrain.consumer.middleware import SuccessesFirst, compose_for_successes
from kafetrain.core.entry import Entry
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


PREPARED: Any = None


def record(offset: int = 0, key: Any = b"k") -> Any:
    return SimpleNamespace(topic="t", partition=0, offset=offset, key=key)


RECORD = record()


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


@pytest.mark.parametrize(
    ("locked", "also_seen"),
    [
        (record(1), True),
        (record(1, b"other"), False),
        (record(1, bytearray(b"other")), True),
        (record(7, b"other"), True),
        (record(7, None), True),
        (record(1, None), False),
    ],
)
def test_a_lock_of_its_key_or_of_itself_brings_all_back(locked: Any, also_seen: bool) -> None:
    claim = Claim(Side.SOURCE, PREPARED, 0, None, ready=True)
    claim.locks.put(0, Entry(b"k", log_offset=1))
    claim.locks.put(7, Entry(None, log_offset=2, readable=False))
    quiet = Seen(skips_successes=True)
    call = compose_for_successes([quiet], lambda record: None, claim)
    call(locked)
    assert quiet.results == [None] * also_seen
    claim.ready = False
    call(record(1, b"other"))
    assert quiet.results == [None] * (also_seen + 1)


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


def test_what_waited_until_the_partition_went_away_does_not_run() -> None:
    """It may be ours again by now, under a new claim: the record is delivered anew."""
    claim = Claim(Side.SOURCE, PREPARED, 0, None)
    ran: list[Any] = []

    class Waiting(Seen):
        def __call__(self, record: Any, call_next: Handler) -> object:
            claim.released = True
            return super().__call__(record, call_next)

    with pytest.raises(NoOutcome):
        compose_for_successes([Waiting(skips_successes=True)], ran.append, claim)(RECORD)
    assert ran == []


class Batch:
    """A run and its worker in one."""

    def __init__(self) -> None:
        self.done = 0
        self.leaving = False


def successes(handler: Handler, claim: Claim | None = None) -> SuccessesFirst:
    composed = compose_for_successes([Seen(skips_successes=True)], handler, claim)
    assert isinstance(composed, SuccessesFirst)
    return composed


RECORDS: list[Any] = [record(offset, b"%d" % offset) for offset in range(5)]


def test_a_batch_runs_to_its_end_where_all_succeed() -> None:
    ran: list[Any] = []
    batch = Batch()
    assert successes(ran.append).run(RECORDS, batch, batch) is None
    assert ran == RECORDS
    assert batch.done == 5


def test_a_batch_stops_at_a_failure_which_is_told_without_running_the_handler_again() -> None:
    ran: list[int] = []

    def failing(record: Any) -> None:
        ran.append(record.offset)
        if record.offset == 2:
            raise ValueError("no")

    batch = Batch()
    first = successes(failing)
    call = first.run(RECORDS, batch, batch)
    assert call is not None
    assert batch.done == 2
    with pytest.raises(ValueError, match="no"):
        call(RECORDS[2])
    batch.done = 3
    assert first.run(RECORDS, batch, batch) is None
    assert ran == [0, 1, 2, 3, 4]


def test_a_lock_of_its_key_that_appears_in_the_middle_of_a_batch_stops_it() -> None:
    """The next record of the locked key goes through the middlewares before its handler; others need not."""
    claim = Claim(Side.SOURCE, PREPARED, 0, None, ready=True)

    def locking(record: Any) -> None:
        if record.offset == 1:
            claim.locks.put(0, Entry(b"3", due_ms=0, log_offset=7))

    batch = Batch()
    quiet = Seen(skips_successes=True)
    composed = compose_for_successes([quiet], locking, claim)
    assert isinstance(composed, SuccessesFirst)
    call = composed.run(RECORDS, batch, batch)
    assert batch.done == 3
    assert quiet.results == []
    assert call is not None
    call(RECORDS[3])
    assert quiet.results == [None]


def test_a_batch_ends_where_its_worker_leaves_or_the_partition_has_gone() -> None:
    claim = Claim(Side.SOURCE, PREPARED, 0, None, ready=True)
    batch = Batch()

    def leaving(record: Any) -> None:
        batch.leaving = record.offset == 1

    assert successes(leaving, claim).run(RECORDS, batch, batch) is None
    assert batch.done == 2

    def releasing(record: Any) -> None:
        claim.released = record.offset == 3

    batch.leaving = False
    assert successes(releasing, claim).run(RECORDS, batch, batch) is not None
    assert batch.done == 4


class Told(Exception):
    """One that can be watched."""


def test_nothing_keeps_an_error_that_was_dealt_with() -> None:
    """Its traceback leads to whoever raised it again: such rings are left to the garbage collector."""
    left: list[weakref.ref[Told]] = []

    def failing(_: Any) -> None:
        error = Told()
        left.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error  # a ring of the handler's own

    def dealing(record: Any, call_next: Handler) -> object:
        try:
            return call_next(record)
        except Told:
            return None

    dealing.skips_successes = True  # type: ignore[attr-defined]
    composed = compose_for_successes([dealing, dealing], failing, None)
    assert isinstance(composed, SuccessesFirst)
    gc.disable()
    try:
        composed(RECORDS[0])
        batch = Batch()
        call = composed.run(RECORDS, batch, batch)
        assert call is not None
        call(RECORDS[0])
        del call
        assert [one() for one in left] == [None, None]
    finally:
        gc.enable()
