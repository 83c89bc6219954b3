"""Durations and sizes as text."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafetrain.durations import format_duration, parse_duration, parse_size


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("500ms", 0.5),
        ("1s", 1),
        ("5m", 300),
        ("2h", 7200),
        ("1d", 86400),
        (" 1.5 s ", 1.5),
        ("1h30m", 5400),
        ("1H 30M", 5400),
        ("PT5M", 300),
        ("P1DT2H", 93600),
        ("P2W", 1209600),
        ("PT0.5S", 0.5),
        ("pt5m", 300),
        (30, 30),
        (0.25, 0.25),
        ("30", 30),
        ("0.25", 0.25),
        ("0", 0),
        ("-3", -3),
        (timedelta(minutes=1), 60),
    ],
)
def test_a_duration_is_text_with_a_unit_or_iso_8601_or_seconds(value: object, seconds: float) -> None:
    assert parse_duration(value) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "value",
    ["", "s", "5x", "five", "1,5s", "P", "PT", "P1DT", "P1M", "P1Y", "1e400", "1e3", "nan", "inf", "--1", "1s!", "٣s "],
)
def test_other_text_is_no_duration(value: str) -> None:
    with pytest.raises(ValueError, match=r"duration|finite"):
        parse_duration(value)


@pytest.mark.parametrize("value", [True, None, [1], b"1s", float("nan"), float("inf")])
def test_other_values_are_no_duration(value: object) -> None:
    with pytest.raises(ValueError, match=r"duration|finite"):
        parse_duration(value)


@pytest.mark.parametrize("value", ["9" * 30, "9" * 30 + "h", "P" + "9" * 30 + "D", 10**400, "9" * 400])
def test_a_duration_that_python_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"too long|finite"):
        parse_duration(value)


@given(st.integers(0, 10**12))
def test_a_duration_in_whole_milliseconds_survives_text(milliseconds: int) -> None:
    duration = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(duration)) == duration


@pytest.mark.parametrize(("seconds", "text"), [(300, "5m"), (3600, "1h"), (1.5, "1500ms"), (0, "0s"), (90, "90s")])
def test_a_duration_is_written_as_short_as_it_can(seconds: float, text: str) -> None:
    assert format_duration(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (2048, 2048),
        ("2048", 2048),
        ("64MiB", 64 * 2**20),
        ("64 mib", 64 * 2**20),
        ("64MB", 64_000_000),
        ("1.5KiB", 1536),
        ("1k", 1000),
        ("1GiB", 2**30),
        ("10_000", 10_000),
        ("12B", 12),
    ],
)
def test_a_size_is_a_number_of_bytes_with_or_without_a_unit(value: object, size: int) -> None:
    assert parse_size(value) == size


@pytest.mark.parametrize("value", ["", "MiB", "1 apple", "-1", "12i", True, 1.5, None])
def test_other_values_are_no_size(value: object) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(value)
