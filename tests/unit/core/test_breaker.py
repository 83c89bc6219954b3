"""The breaker of a topic, step by step and as any sequence of ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kafetrain.core.breaker import BreakerState, Verdict

KEYS = 4
WINDOW_S = 10.0


def breaker() -> BreakerState:
    return BreakerState(keys=KEYS, window_s=WINDOW_S, probe_after_s=2.0, probe_at_most_s=7.0)


def opened(now: float = 0.0) -> BreakerState:
    made = breaker()
    verdicts = [made.ended(key, OSError, now) for key in range(KEYS)]
    assert verdicts == [Verdict.AS_IT_IS] * (KEYS - 1) + [Verdict.OPENED]
    return made


def test_it_opens_when_so_many_keys_in_a_row_have_failed_with_one_class() -> None:
    made = opened()
    assert made.is_open
    assert made.kind is OSError


@pytest.mark.parametrize("between", [None, ValueError], ids=["success", "another class"])
def test_another_end_starts_the_count_again(between: type | None) -> None:
    made = breaker()
    for key in range(KEYS - 1):
        made.ended(key, OSError, 0.0)
    assert made.ended("between", between, 0.0) is Verdict.AS_IT_IS
    assert [made.ended(key, OSError, 0.0) for key in range(KEYS)][-2:] == [Verdict.AS_IT_IS, Verdict.OPENED]


def test_a_key_counts_once_at_its_last_failure() -> None:
    made = breaker()
    for _ in range(10):
        for key in range(KEYS - 1):
            assert made.ended(key, OSError, 0.0) is Verdict.AS_IT_IS
    made.ended(0, OSError, WINDOW_S)
    assert made.ended("other", OSError, WINDOW_S + 1) is Verdict.AS_IT_IS, "1 and 2 are too long ago, 0 is not"
    assert made.ended(1, OSError, WINDOW_S + 1) is Verdict.AS_IT_IS
    assert made.ended(2, OSError, WINDOW_S + 1) is Verdict.OPENED


def test_failures_that_are_further_apart_than_the_window_open_nothing() -> None:
    made = breaker()
    apart = WINDOW_S / (KEYS - 1) + 0.1
    assert {made.ended(key, OSError, key * apart) for key in range(50)} == {Verdict.AS_IT_IS}


def test_the_wait_doubles_with_each_probe_that_fails_up_to_its_bound() -> None:
    made, now, waits = opened(), 0.0, []
    for key in range(5):
        waited = 0.0
        while (wait := made.ask(key, now)) is not None:
            assert 0 < wait <= 1
            waited, now = waited + wait, now + wait
        waits.append(waited)
        assert made.ended(key, OSError, now, probe=True) is Verdict.WAIT
    assert waits == [2, 4, 7, 7, 7]


def test_one_probe_at_a_time() -> None:
    made = opened()
    assert made.ask("a", 2.0) is None
    assert made.ask("b", 100.0) == 1
    made.ended("a", OSError, 100.0, probe=True)
    assert made.ask("b", 104.0) is None


def test_another_key_than_the_last_probe_is_let_through_first() -> None:
    made = opened()
    assert made.ask("never succeeds", 2.0) is None
    made.ended("never succeeds", OSError, 2.0, probe=True)
    assert made.ask("never succeeds", 6.0) == 1
    assert made.ask("other", 6.0) is None
    assert made.ended("other", None, 6.0, probe=True) is Verdict.CLOSED


def test_a_key_that_is_alone_is_probed_again_a_moment_later() -> None:
    made = opened()
    assert made.ask("alone", 2.0) is None
    made.ended("alone", OSError, 2.0, probe=True)
    assert made.ask("alone", 6.5) == 0.5
    assert made.ask("alone", 7.0) is None


@pytest.mark.parametrize("end", [None, ValueError], ids=["success", "another class"])
def test_a_probe_that_ends_in_another_way_closes_it_and_the_count_starts_again(end: type | None) -> None:
    made = opened()
    assert made.ask("a", 2.0) is None
    assert made.ended("a", end, 2.0, probe=True) is Verdict.CLOSED
    assert (made.is_open, made.counting) == (False, end is not None)
    assert [made.ended(key, OSError, 2.0) for key in range(KEYS)][-1] is Verdict.OPENED
    assert made.ask("a", 3.9) == pytest.approx(0.1), "and the waits begin anew"


def test_a_probe_without_an_outcome_leaves_it_open_and_the_wait_as_it_was() -> None:
    made = opened()
    assert made.ask("a", 2.0) is None
    made.undecided(3.0)
    assert made.ask("b", 4.5) == 0.5
    assert made.ask("b", 5.0) is None


def test_runs_that_began_before_it_opened_decide_nothing_and_wait_where_they_fail_alike() -> None:
    made = opened()
    assert made.ended("late", OSError, 0.1) is Verdict.WAIT
    assert made.ended("late", ValueError, 0.1) is Verdict.AS_IT_IS
    assert made.ended("late", None, 0.1) is Verdict.AS_IT_IS
    assert made.is_open


@given(st.lists(st.tuples(st.integers(0, KEYS - 2), st.sampled_from([OSError, ValueError, None])), max_size=60))
def test_fewer_keys_than_it_needs_never_open_it(ends: list[tuple[int, type | None]]) -> None:
    made = breaker()
    assert {made.ended(key, kind, 0.0) for key, kind in ends} <= {Verdict.AS_IT_IS}


class AnyHistory(RuleBasedStateMachine):
    """Runs begin and end in any order, also across the opening; what has failed in a row is kept beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker, self.now = breaker(), 0.0
        self.in_a_row: list[tuple[int, type, float]] = []
        self.probe: int | None = None

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 3.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(key=st.integers(0, 7), kind=st.sampled_from([OSError, OSError, OSError, ValueError, None]))
    def a_run_ends(self, key: int, kind: type | None) -> None:
        was_open = self.breaker.is_open
        verdict = self.breaker.ended(key, kind, self.now)
        if was_open:
            assert verdict is (Verdict.WAIT if kind is self.breaker.kind else Verdict.AS_IT_IS)
            return
        if kind is None or any(kind is not other for _, other, _ in self.in_a_row):
            self.in_a_row.clear()
        if kind is not None:
            self.in_a_row.append((key, kind, self.now))
        recent = {key for key, _, at in self.in_a_row if self.now - at <= WINDOW_S}
        assert (verdict is Verdict.OPENED) is self.breaker.is_open is (len(recent) >= KEYS)

    @precondition(lambda self: self.breaker.is_open)
    @rule(key=st.integers(0, 7))
    def a_record_asks(self, key: int) -> None:
        wait_s = self.breaker.ask(key, self.now)
        if wait_s is None:
            assert self.probe is None, "one at a time"
            self.probe = key
        else:
            assert 0 <= wait_s <= 1

    @precondition(lambda self: self.probe is not None)
    @rule(kind=st.sampled_from([OSError, ValueError, None]))
    def the_probe_ends(self, kind: type | None) -> None:
        key, self.probe = self.probe, None
        alike = kind is self.breaker.kind
        verdict = self.breaker.ended(key, kind, self.now, probe=True)
        assert (verdict, self.breaker.is_open) == ((Verdict.WAIT, True) if alike else (Verdict.CLOSED, False))
        if not alike:
            self.in_a_row = [] if kind is None or key is None else [(key, kind, self.now)]

    @precondition(lambda self: self.probe is not None)
    @rule()
    def the_probe_is_called_off(self) -> None:
        self.probe = None
        self.breaker.undecided(self.now)

    @invariant()
    def an_open_one_lets_a_probe_through_in_time(self) -> None:
        if self.breaker.is_open and self.probe is None:
            assert self.breaker.wait_s(self.now + 7.0) == 0

    @invariant()
    def it_says_when_ends_matter(self) -> None:
        if not self.breaker.is_open:
            assert self.breaker.counting is bool(self.in_a_row)


TestAnyHistory = AnyHistory.TestCase
