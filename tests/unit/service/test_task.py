"""A task's life, by itself: what comes after each delivery, and when."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import kafetrain.service.domain as domain
from kafetrain.service.domain.backoff import LONGEST_DELAY_S, Backoff
from kafetrain.service.domain.breaker import Breaker
from kafetrain.service.domain.task import KEPT_ATTEMPTS, Attempt, State, Task
from tests.unit.service.tasks import a_task


def fail(task: Task, now: float, retry_after: float | None = None) -> None:
    to = "destination" if task.has_retries_left() else "dead_destination"
    if to == "destination":
        task.increment_attempt()
    task.failed(Attempt(task.attempt, to, now, 0.1, None, "no"), now, retry_after)


def test_the_domain_imports_nothing_from_outside() -> None:
    allowed = {"__future__", "collections", "dataclasses", "enum", "random", "typing"}
    for path in Path(str(domain.__file__)).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.startswith("kafetrain.service.domain") or name.split(".")[0] in allowed, (path, name)


def test_five_deliveries_double_their_delay_and_then_it_is_for_the_dead_destination() -> None:
    task = a_task(now=0.0)
    delays, now = [], 0.0
    while task.has_retries_left():
        delays.append(task.due_at - now)
        now = task.due_at
        fail(task, now)
    assert delays == [10, 20, 40, 80, 160]
    assert (task.attempt, task.due_at, task.state) == (5, now, State.SCHEDULED)


def test_without_retries_the_dead_destination_is_due_at_once() -> None:
    task = a_task(now=7.0, max_retries=0)
    assert not task.has_retries_left()
    assert task.due_at == 7.0


def test_a_dead_destination_that_fails_is_tried_again_without_end() -> None:
    task = a_task(now=0.0, max_retries=0, base_delay=0.0)
    waits = []
    for _ in range(60):
        now = task.due_at
        fail(task, now)
        waits.append(task.due_at - now)
    assert task.state is State.DEAD
    assert min(waits) >= 1.0
    assert max(waits) <= 3600
    assert len(task.attempts) == KEPT_ATTEMPTS
    task.succeeded(Attempt(0, "dead_destination", 1.0, 0.1), 9.0)
    assert (task.state, task.due_at) == (State.DEAD_LETTERED, 9.0)


def test_what_a_destination_asks_for_counts_if_it_is_longer_and_no_more_than_a_day() -> None:
    task = a_task(now=0.0)
    fail(task, 0.0, retry_after=5.0)
    assert task.due_at == 20.0
    fail(task, 0.0, retry_after=300.0)
    assert task.due_at == 300.0
    fail(task, 0.0, retry_after=1e9)
    assert task.due_at == 86_400.0


def test_a_delivered_task_is_neither_hurried_nor_replayed() -> None:
    task = a_task(now=0.0)
    task.increment_attempt()
    task.succeeded(Attempt(1, "destination", 10.0, 0.1, 200), 10.0)
    assert task.state is State.DELIVERED
    with pytest.raises(ValueError, match="no delivery to hurry"):
        task.hurry(11.0)
    with pytest.raises(ValueError, match="only dead tasks"):
        task.replay(11.0)


def test_a_replayed_task_has_all_its_retries_again() -> None:
    task = a_task(now=0.0, max_retries=1)
    fail(task, 0.0)
    fail(task, 0.0)
    task.replay(50.0)
    assert (task.state, task.attempt, task.due_at, task.has_retries_left()) == (State.SCHEDULED, 0, 50.0, True)
    assert len(task.attempts) == 2


@pytest.mark.parametrize(
    ("backoff", "delays"),
    [
        (Backoff(), [10, 20, 40, 80]),
        (Backoff("linear"), [10, 20, 30, 40]),
        (Backoff("constant"), [10, 10, 10, 10]),
        (Backoff(max_delay=25), [10, 20, 25, 25]),
    ],
)
def test_kinds_of_backoff(backoff: Backoff, delays: list[float]) -> None:
    assert [backoff.delay(10, attempt) for attempt in (1, 2, 3, 4)] == delays


def test_a_late_attempt_overflows_nothing() -> None:
    assert Backoff().delay(1e9, 10**9) == LONGEST_DELAY_S
    assert Backoff("linear").delay(1e300, 10**9) == LONGEST_DELAY_S
    assert Backoff().delay(0.0, 10**9) == 0.0


def test_jitter_spreads_either_way_and_not_past_the_maximum() -> None:
    backoff = Backoff("constant", max_delay=105, jitter=0.1)
    assert backoff.delay(100, 1, random=lambda: 0.0) == 90
    assert backoff.delay(100, 1, random=lambda: 0.999999) == 105


def test_a_breaker_opens_after_five_failures_and_one_trial_closes_it() -> None:
    breaker = Breaker()
    for _ in range(4):
        breaker.unreachable(0.0, "refused")
    assert breaker.allows(0.0)
    breaker.unreachable(0.0, "refused")
    assert not breaker.allows(1.9)
    assert breaker.allows(2.0)
    assert not breaker.allows(2.1)  # one trial at a time
    breaker.reached()
    assert breaker.allows(2.2)


def test_a_breaker_whose_trials_fail_pauses_longer_but_not_for_ever() -> None:
    breaker = Breaker()
    now, pauses = 0.0, []
    for _ in range(12):
        breaker.unreachable(now, "refused")
        begun = now
        while not breaker.allows(now):
            now += 0.5
        pauses.append(now - begun)
    assert pauses[4:] == [2, 4, 8, 16, 30, 30, 30, 30]
