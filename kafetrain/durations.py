"""Durations and sizes as text, the way people write them in files and in the environment."""

from __future__ import annotations

import math
import re
from datetime import timedelta

__all__ = ["format_duration", "parse_duration", "parse_size"]

_NUMBER = r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+"
_PLAIN = re.compile(rf"[+-]?(?:{_NUMBER})")
_UNIT = re.compile(rf"({_NUMBER})\s*(ms|s|m|h|d)\s*", re.IGNORECASE)
_UNITS = re.compile(rf"(?:(?:{_NUMBER})\s*(?:ms|s|m|h|d)\s*)+", re.IGNORECASE)
_ISO = re.compile(
    rf"P(?!$)(?:(?P<weeks>{_NUMBER})W)?(?:(?P<days>{_NUMBER})D)?"
    rf"(?:T(?!$)(?:(?P<hours>{_NUMBER})H)?(?:(?P<minutes>{_NUMBER})M)?(?:(?P<seconds>{_NUMBER})S)?)?",
    re.IGNORECASE,
)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(rf"({_NUMBER})\s*([kmg]?)(i?)b?", re.IGNORECASE)
_SUFFIXES = (("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1000))


def parse_duration(value: object) -> timedelta:
    """`500ms`, `1s`, `5m`, `2h`, `1h30m`, ISO 8601 (`PT5M`), a number of seconds, or a timedelta as it is.

    Years and months of ISO 8601 are refused: they have no fixed length. Raises `ValueError`.
    """
    if isinstance(value, timedelta):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{type(value).__name__} is not a duration")
    try:
        if not isinstance(value, str):
            return _of_seconds(value)
        text = value.strip()
        if _PLAIN.fullmatch(text):
            return _of_seconds(float(text))
        if _UNITS.fullmatch(text):
            parts = _UNIT.findall(text)
            return _of_seconds(math.fsum(float(number) * _SECONDS[unit.lower()] for number, unit in parts))
        if iso := _ISO.fullmatch(text):
            return timedelta(**{unit: float(number) for unit, number in iso.groupdict(default="0").items()})
    except OverflowError:
        raise ValueError("too long for a duration") from None
    raise ValueError("not a duration")


def _of_seconds(seconds: float) -> timedelta:
    if not math.isfinite(seconds):
        raise ValueError("not a finite number of seconds")
    return timedelta(seconds=seconds)


def format_duration(duration: timedelta) -> str:
    """The shortest text that `parse_duration` reads back: `5m`, `1h`, `1500ms`. Cut to whole milliseconds."""
    microseconds = round(duration.total_seconds() * 1_000_000)
    for suffix, unit in _SUFFIXES:
        if microseconds and microseconds % unit == 0:
            return f"{microseconds // unit}{suffix}"
    return f"{int(microseconds / 1000)}ms" if microseconds else "0s"


def parse_size(value: object) -> int:
    """`64MiB`, `64MB`, `512k`, or a number of bytes; a fraction of a byte is cut off. Raises `ValueError`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(value.strip().replace("_", "")) if isinstance(value, str) else None
    if match is None:
        raise ValueError("not a size")
    number, prefix, binary = match.groups()
    if binary and not prefix:
        raise ValueError("not a size")
    power = " kmg".index(prefix.lower() or " ")
    base = 1024 if binary else 1000
    return int(float(number) * base**power) if "." in number else int(number) * base**power
