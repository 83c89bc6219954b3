"""Backoff policies: how long a record waits."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafetrain.backoff_policy import ConstantBackoff, ExponentialBackoff, LinearBackoff, backoff_from
from kafetrain.record import BackoffPolicy

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
HALFWAY = 0.5  # of the random source: no jitter either way


def seconds_of(policy: BackoffPolicy, attempts: int = 5) -> list[float]:
    return [policy(attempt).total_seconds() for attempt in range(1, attempts + 1)]


def test_exponential_backoff_doubles_up_to_its_maximum() -> None:
    policy = ExponentialBackoff(maximum=timedelta(seconds=10), jitter=0)
    assert seconds_of(policy, 6) == [1, 2, 4, 8, 10, 10]


def test_exponential_backoff_has_the_documented_defaults() -> None:
    assert ExponentialBackoff() == ExponentialBackoff(
        initial=timedelta(seconds=1), multiplier=2, maximum=timedelta(minutes=5), jitter=0.1
    )


def test_linear_backoff_grows_by_its_step_up_to_its_maximum() -> None:
    policy = LinearBackoff(initial=SECOND, step=timedelta(seconds=3), maximum=timedelta(seconds=9))
    assert seconds_of(policy) == [1, 4, 7, 9, 9]


def test_linear_backoff_has_the_documented_defaults() -> None:
    assert LinearBackoff() == LinearBackoff(
        initial=timedelta(seconds=1), step=timedelta(seconds=1), maximum=timedelta(minutes=1)
    )


def test_constant_backoff_always_waits_the_same() -> None:
    assert seconds_of(ConstantBackoff(timedelta(seconds=7))) == [7, 7, 7, 7, 7]


@pytest.mark.parametrize("attempt", [10_000, 10**400])
@pytest.mark.parametrize(
    "policy",
    [
        ExponentialBackoff(maximum=DAY, jitter=0),
        ExponentialBackoff(multiplier=1e300, maximum=DAY, jitter=0),
        ExponentialBackoff(maximum=timedelta.max, jitter=0),
        LinearBackoff(step=timedelta(days=400_000), maximum=timedelta.max),
        LinearBackoff(step=timedelta(days=10), maximum=DAY),
    ],
)
def test_a_late_attempt_waits_the_maximum_instead_of_overflowing(
    policy: ExponentialBackoff | LinearBackoff, attempt: int
) -> None:
    assert policy(attempt) == policy.maximum


def test_a_wait_that_never_grows_stays_at_any_attempt() -> None:
    assert ExponentialBackoff(initial=timedelta(0), jitter=0)(10_000) == timedelta(0)
    assert ExponentialBackoff(multiplier=1, jitter=0)(10_000) == SECOND
    assert LinearBackoff(step=timedelta(0))(10**400) == SECOND


@pytest.mark.parametrize(
    "make",
    [
        lambda random: ExponentialBackoff(initial=10 * SECOND, jitter=0.2, random=random),
        lambda random: LinearBackoff(initial=10 * SECOND, jitter=0.2, random=random),
        lambda random: ConstantBackoff(10 * SECOND, jitter=0.2, random=random),
    ],
)
def test_jitter_spreads_a_wait_to_both_sides(make: Callable[[Callable[[], float]], BackoffPolicy]) -> None:
    assert make(lambda: 0.0)(1) == timedelta(seconds=8)
    assert make(lambda: HALFWAY)(1) == timedelta(seconds=10)
    assert make(lambda: 0.999999)(1).total_seconds() == pytest.approx(12, abs=1e-4)


def test_jitter_spreads_waits_at_the_maximum_below_it() -> None:
    """Keys that failed together long ago must not come back together either."""
    low = ExponentialBackoff(maximum=10 * SECOND, jitter=0.5, random=lambda: 0.0)
    high = ExponentialBackoff(maximum=10 * SECOND, jitter=0.5, random=lambda: 0.999)
    assert low(100) == timedelta(seconds=5)
    assert high(100) == timedelta(seconds=10)


@given(
    initial=st.timedeltas(min_value=timedelta(0), max_value=DAY),
    more=st.timedeltas(min_value=timedelta(0), max_value=DAY),
    multiplier=st.floats(1, 1e6),
    jitter=st.floats(0, 1),
    chance=st.floats(0, 1, exclude_max=True),
    attempt=st.integers(1, 100_000),
)
def test_no_wait_is_above_the_maximum_or_below_zero(
    initial: timedelta, more: timedelta, multiplier: float, jitter: float, chance: float, attempt: int
) -> None:
    maximum = initial + more
    policies: list[BackoffPolicy] = [
        ExponentialBackoff(initial, multiplier, maximum, jitter, random=lambda: chance),
        LinearBackoff(initial, more, maximum, jitter, random=lambda: chance),
    ]
    for policy in policies:
        assert timedelta(0) <= policy(attempt) <= maximum


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: ExponentialBackoff(initial=-SECOND), "initial must not be negative"),
        (lambda: ExponentialBackoff(initial=1), "initial must be a timedelta"),  # type: ignore[arg-type]
        (lambda: ExponentialBackoff(multiplier=0.5), "multiplier must be at least 1"),
        (lambda: ExponentialBackoff(multiplier=float("nan")), "multiplier must be a finite number"),
        (lambda: ExponentialBackoff(multiplier=float("inf")), "multiplier must be a finite number"),
        (lambda: ExponentialBackoff(multiplier="2"), "multiplier must be a finite number"),  # type: ignore[arg-type]
        (lambda: ExponentialBackoff(initial=DAY), "maximum .* must not be below initial"),
        (lambda: ExponentialBackoff(jitter=1.5), "jitter must be from 0 to 1"),
        (lambda: ExponentialBackoff(jitter=-0.1), "jitter must be from 0 to 1"),
        (lambda: LinearBackoff(step=-SECOND), "step must not be negative"),
        (lambda: LinearBackoff(maximum=timedelta(0)), "maximum .* must not be below initial"),
        (lambda: LinearBackoff(jitter=2), "jitter must be from 0 to 1"),
        (lambda: ConstantBackoff(-SECOND), "delay must not be negative"),
        (lambda: ConstantBackoff(3), "delay must be a timedelta"),  # type: ignore[arg-type]
        (lambda: ConstantBackoff(SECOND, jitter=2), "jitter must be from 0 to 1"),
    ],
)
def test_an_impossible_policy_is_refused_when_it_is_built(build: Callable[[], object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        build()


@pytest.mark.parametrize("policy", [ExponentialBackoff(), LinearBackoff(), ConstantBackoff(SECOND)])
def test_attempts_count_from_one(policy: BackoffPolicy) -> None:
    with pytest.raises(ValueError, match="attempt counts from 1, not 0"):
        policy(0)


@pytest.mark.parametrize("policy", [ExponentialBackoff(), LinearBackoff(), ConstantBackoff(SECOND)])
def test_a_policy_is_a_value(policy: Any) -> None:
    """Frozen, comparable, hashable, and it survives a pickle."""
    with pytest.raises(AttributeError):
        policy.jitter = 0.5
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert len({policy, type(policy)(**{n: getattr(policy, n) for n in vars(policy)})}) == 1


@pytest.mark.parametrize(
    ("mapping", "policy"),
    [
        ({}, ExponentialBackoff()),
        ({"policy": "exponential", "initial": "500ms"}, ExponentialBackoff(initial=SECOND / 2)),
        ({"multiplier": "3", "maximum": "PT1H", "jitter": 0}, ExponentialBackoff(SECOND, 3, timedelta(hours=1), 0)),
        ({"policy": "linear", "step": 2, "maximum": "1m"}, LinearBackoff(step=2 * SECOND)),
        ({"policy": "constant", "delay": "3s"}, ConstantBackoff(3 * SECOND)),
        ({"policy": "constant", "initial": "3s", "jitter": 0.2}, ConstantBackoff(3 * SECOND, 0.2)),
    ],
)
def test_a_mapping_describes_a_policy(mapping: dict[str, object], policy: BackoffPolicy) -> None:
    assert backoff_from(mapping) == policy


@pytest.mark.parametrize(
    ("mapping", "text"),
    [
        ({"policy": "fibonacci"}, "'fibonacci' is none of exponential, linear, constant"),
        ({"policy": ["linear"]}, "is none of"),
        ({"policy": "linear", "multiplier": 2}, "linear has no multiplier, but initial, jitter, maximum, step"),
        ({"policy": "constant"}, "needs its delay"),
        ({"initial": "soon"}, "initial 'soon' is not a duration"),
        ({"multiplier": "double"}, "multiplier 'double' is not a number"),
        ({"multiplier": [2]}, "multiplier must be a finite number"),
        ({"initial": "10m"}, "maximum .* must not be below initial"),
    ],
)
def test_a_mapping_that_describes_no_policy_says_why(mapping: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        backoff_from(mapping)
