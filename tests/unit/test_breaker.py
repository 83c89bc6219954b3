"""The numbers of a breaker, in code and as text."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest

from kafetrain import Breaker, ConfigurationError, Settings


def error_of(breaker: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Settings(group_id="billing", breaker=breaker)
    return str(caught.value)


def test_a_breaker_is_a_value() -> None:
    assert Breaker() == Breaker(20, timedelta(seconds=10), timedelta(seconds=1), timedelta(seconds=30))
    with pytest.raises(AttributeError):
        Breaker().keys = 3  # type: ignore[misc]  # frozen: that is the point


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"keys": 1}, "keys must be a whole number of at least 2, not 1"),
        ({"keys": True}, "keys must be a whole number of at least 2, not True"),
        ({"keys": 2.5}, "keys must be a whole number of at least 2, not 2.5"),
        ({"window": 10}, "window must be a timedelta"),
        ({"window": timedelta(0)}, "window must be longer than nothing"),
        ({"probe_after": timedelta(seconds=-1)}, "probe_after must be longer than nothing"),
        ({"probe_after": timedelta(minutes=1)}, "probe_at_most (0:00:30) must not be below probe_after (0:01:00)"),
    ],
)
def test_what_makes_no_sense_is_refused(numbers: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        Breaker(**numbers)


def test_the_environment_describes_one_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFETRAIN_BREAKER", '{"keys": "7", "window": "1m", "probe_after": 0.5}')
    monkeypatch.setenv("KAFETRAIN_MAXIMUM_ATTEMPTS_AGE", "90m")
    settings = Settings(group_id="billing")
    assert settings.breaker == Breaker(keys=7, window=timedelta(minutes=1), probe_after=timedelta(milliseconds=500))
    assert settings.maximum_attempts_age == timedelta(minutes=90)
    monkeypatch.setenv("KAFETRAIN_BREAKER", "none")
    monkeypatch.setenv("KAFETRAIN_MAXIMUM_ATTEMPTS_AGE", "None")
    settings = Settings(group_id="billing")
    assert (settings.breaker, settings.maximum_attempts_age) == (None, None)


@pytest.mark.parametrize(
    ("breaker", "said"),
    [
        ({"key": 5}, "a breaker has no key, but keys, window, probe_after, probe_at_most"),
        ({"window": "soon"}, "window 'soon' is not a duration"),
        ({"keys": 1}, "keys must be a whole number of at least 2"),
        ({"keys": "many"}, "keys must be a whole number of at least 2, not 'many'"),
        ("{", "the text is not JSON"),
        (5, "int is no mapping"),
        (True, "bool is no mapping"),
    ],
)
def test_an_error_says_what_a_breaker_may_be(breaker: object, said: str) -> None:
    text = error_of(breaker)
    assert said in text
    assert text.endswith("it may be a Breaker, a mapping with keys, window, probe_after, probe_at_most, or none")


@pytest.mark.parametrize("age", ["0s", timedelta(seconds=-1), "old"])
def test_an_age_must_be_longer_than_nothing(age: object) -> None:
    with pytest.raises(ConfigurationError, match="it may be a duration such as 2h, or none for no limit"):
        Settings(group_id="billing", maximum_attempts_age=age)


def test_with_an_age_only_what_is_asked_for_limits_the_number_of_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    day = timedelta(days=1)
    assert Settings(group_id="billing").max_retries == 5
    assert Settings(group_id="billing", maximum_attempts_age=day).max_retries is None
    assert Settings(group_id="billing", maximum_attempts_age=day, max_retries=5).max_retries == 5
    monkeypatch.setenv("KAFETRAIN_MAX_RETRIES", "3")
    assert Settings(group_id="billing", maximum_attempts_age=day).max_retries == 3
