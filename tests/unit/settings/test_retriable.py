"""Settings: which errors are worth a retry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kafetrain.errors import NotRetriableError, RetriableError
from kafetrain.retriable import is_retriable
from tests.unit.settings.made import error_of, settings


class TestRetriable:
    @pytest.mark.parametrize(
        "value", [(OSError, KeyError), [OSError, KeyError], "OSError,KeyError", ["OSError", KeyError]]
    )
    def test_error_classes_are_classes_or_names(self, value: object) -> None:
        assert settings(retry_on=value).retry_on == (OSError, KeyError)

    def test_one_class_needs_no_tuple(self) -> None:
        assert settings(never_retry_on=KeyError).never_retry_on == (KeyError,)

    @pytest.mark.parametrize(
        ("name", "found"),
        [
            ("builtins.OSError", OSError),
            ("json.JSONDecodeError", json.JSONDecodeError),
            ("json.decoder.JSONDecodeError", json.JSONDecodeError),
            ("tests.unit.settings.test_retriable.Outer.InnerError", "Outer.InnerError"),
        ],
    )
    def test_a_name_has_dots_down_to_the_class(self, name: str, found: Any) -> None:
        (read,) = settings(retry_on=name).retry_on
        assert read.__qualname__ == (found if isinstance(found, str) else found.__qualname__)

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ("no_such_module.Error", "no_such_module.Error cannot be imported"),
            ("json.NoSuchError", "json has no NoSuchError"),
            ("json.decoder.nope.Error", "has no nope"),
            ("ValueErorr", "did you mean ValueError?"),
            ("json.loads", "is not a class"),
            ("json.JSONDecoder", "is no error class"),
            ("KeyboardInterrupt", "only subclasses of Exception"),
            ([BaseException], "only subclasses of Exception"),
            ([ValueError()], "is not a class"),
            (5, "no list of error classes"),
            ("tests.unit.no_such_module.Error", "tests.unit has no no_such_module.Error"),
        ],
    )
    def test_what_is_no_error_class_says_why(self, value: object, reason: str) -> None:
        text = error_of(retry_on=value)
        assert text.startswith("retry_on = ")
        assert reason in text

    def test_a_module_that_fails_on_import_says_how(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "broken_here.py").write_text("1 / 0")
        (tmp_path / "needs_more.py").write_text("import not_installed_here")
        monkeypatch.syspath_prepend(tmp_path)
        assert "importing broken_here failed: ZeroDivisionError" in error_of(retry_on="broken_here.Error")
        assert "No module named 'not_installed_here'" in error_of(retry_on="needs_more.Error")

    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (ValueError(), True),
            (RetriableError("later"), True),
            (RetriableError("later", retry=False), False),
            (NotRetriableError("never"), False),
            (KeyboardInterrupt(), False),
        ],
    )
    def test_by_default_every_exception_is_retriable_unless_it_says_not(
        self, error: BaseException, expected: bool
    ) -> None:
        assert is_retriable(error) is expected
        assert settings().is_retriable(error) is expected

    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (OSError(), True),
            (ConnectionError(), True),
            (TimeoutError(), False),
            (KeyError(), False),
            (RetriableError("later"), True),
            (RetriableError(TimeoutError()), True),
            (NotRetriableError("never"), False),
        ],
    )
    def test_never_retry_on_wins_over_retry_on_and_the_error_itself_over_both(
        self, error: BaseException, expected: bool
    ) -> None:
        read = settings(retry_on=OSError, never_retry_on=TimeoutError)
        assert read.is_retriable(error) is expected

    def test_where_nothing_is_retried_an_error_may_still_ask_for_it(self) -> None:
        read = settings(retry_on=())
        assert not read.is_retriable(ValueError())
        assert read.is_retriable(RetriableError("later"))


class Outer:
    class InnerError(Exception):
        pass
