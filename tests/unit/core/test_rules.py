"""The rules, one by one, as tables."""

from __future__ import annotations

from datetime import timedelta

import pytest

from kafetrain import ConstantBackoff, RetriableError
from kafetrain.core.entry import Entry, State
from kafetrain.core.lock_table import SourceLocks
from kafetrain.core.rules import SourceStep, due_after, exhausted, runnable_head, source_step, to_park


def locks(*, pending: tuple[int, ...] = (), dead: tuple[int, ...] = (), ended: tuple[int, ...] = ()) -> SourceLocks:
    made = SourceLocks()
    for at, offset in enumerate(pending + dead):
        state = State.DEAD if offset in dead else State.PENDING
        made.put(offset, Entry(b"k", state=state, log_offset=at))
    for offset in ended:
        made.end(offset, b"k", 100 + offset)
    return made


@pytest.mark.parametrize(
    ("known", "offset", "step"),
    [
        (locks(), 5, SourceStep.RUN),
        (locks(pending=(5,)), 5, SourceStep.REPEAT_RETRY_RECORD),
        (locks(pending=(3, 5)), 5, SourceStep.REPEAT_RETRY_RECORD),
        (locks(dead=(5,)), 5, SourceStep.COMPLETE),
        (locks(ended=(5,)), 5, SourceStep.COMPLETE),
        (locks(ended=(7,)), 5, SourceStep.COMPLETE),
        (locks(pending=(7,)), 5, SourceStep.COMPLETE),
        (locks(dead=(7,)), 5, SourceStep.COMPLETE),
        (locks(pending=(3, 7)), 5, SourceStep.COMPLETE),
        (locks(pending=(3,)), 5, SourceStep.SIDELINE),
        (locks(dead=(3,)), 5, SourceStep.SIDELINE),
        (locks(dead=(2,), pending=(3,)), 5, SourceStep.SIDELINE),
        (locks(ended=(3,)), 5, SourceStep.RUN),
    ],
)
def test_the_first_source_rule_that_matches(known: SourceLocks, offset: int, step: SourceStep) -> None:
    assert source_step(known, known.chains.get(b"k"), offset) is step


def test_locks_from_before_a_rewind_do_not_prove_that_a_record_has_ended() -> None:
    known = locks(pending=(7,))
    known.set_floor(50)
    assert source_step(known, known.chains.get(b"k"), 5) is SourceStep.RUN


@pytest.mark.parametrize(
    ("known", "head", "park"),
    [
        (locks(pending=(3, 5)), 3, None),
        (locks(dead=(3,), pending=(5, 6)), None, 5),
        (locks(dead=(3,)), None, None),
    ],
)
def test_only_a_living_head_runs_and_only_behind_a_dead_one_is_parked(
    known: SourceLocks, head: int | None, park: int | None
) -> None:
    assert runnable_head(known, known.chains[b"k"]) == head
    assert to_park(known, known.chains[b"k"]) == park


@pytest.mark.parametrize(
    ("failures", "max_retries", "last"),
    [(1, 0, True), (1, 1, False), (2, 1, True), (5, 5, False), (6, 5, True), (99, None, False)],
)
def test_max_retries_counts_the_runs_after_the_first(failures: int, max_retries: int | None, last: bool) -> None:
    assert exhausted(failures, max_retries) is last


@pytest.mark.parametrize(
    ("first_failure_ms", "now_ms", "last"),
    [(None, 99_000, False), (1_000, 1_000, False), (1_000, 6_000, False), (1_000, 6_001, True), (6_001, 1_000, False)],
)
def test_a_record_is_too_old_when_its_first_failure_is_longer_ago(
    first_failure_ms: int | None, now_ms: int, last: bool
) -> None:
    assert exhausted(99, None, first_failure_ms, now_ms, timedelta(seconds=5)) is last
    assert exhausted(99, 5, first_failure_ms, now_ms, timedelta(seconds=5)), "the number of runs counts beside it"
    assert not exhausted(99, None, first_failure_ms, now_ms, None)


def test_an_errors_own_delay_replaces_the_policys_and_neither_is_ever_early() -> None:
    policy = ConstantBackoff(timedelta(seconds=2))
    assert due_after(ValueError(), 1, policy, 1_000) == 3_000
    assert due_after(RetriableError("x", delay=timedelta(milliseconds=5)), 1, policy, 1_000) == 1_005
    assert due_after(RetriableError("x", delay=timedelta(microseconds=1)), 1, policy, 1_000) == 1_001
    assert due_after(RetriableError("x"), 1, policy, 1_000) == 3_000
