"""What `LoggingMiddleware` is loud about."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kafetrain import LoggingMiddleware, Outcome, Record

RECORD = SimpleNamespace(topic="orders", partition=0, offset=7, key=b"ann", value=b"secret", headers=(), timestamp=0)


def test_a_dead_letter_is_a_warning_and_what_only_waits_is_not(log: list[str]) -> None:
    outcomes = iter(Outcome)
    for _ in Outcome:
        LoggingMiddleware()(RECORD, lambda record: next(outcomes))
    assert next(outcomes, None) is None
    assert log == ["record dead-lettered"]


def test_a_failure_is_a_warning_without_the_text_of_the_error(log: list[str]) -> None:
    def charge(record: Record) -> None:
        raise ConnectionError("of secret")

    for middleware in (LoggingMiddleware(), LoggingMiddleware(error_text=True)):
        with pytest.raises(ConnectionError):
            middleware(RECORD, charge)
    assert log == ["handler raised ConnectionError", "handler raised ConnectionError: of secret"]
