"""How long a record waits before it is tried again.

A policy is any callable from the number of executions that have failed so far (from 1) to a `timedelta`; the
three here cover most needs. They are values: frozen, comparable, safe to share between threads. None of them
overflows: the ten-thousandth attempt simply waits the maximum.

Which one: `ExponentialBackoff` where a dependency may be down for long; `LinearBackoff` where it recovers within
a known time; `ConstantBackoff` where something outside sets the pace. Jitter keeps the keys that failed together
from coming back together.
"""

from __future__ import annotations

import math
import random as _random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from kafetrain.durations import parse_duration
from kafetrain.record import BackoffPolicy

__all__ = ["ConstantBackoff", "ExponentialBackoff", "LinearBackoff", "backoff_from"]

_ZERO = timedelta(0)


@dataclass(frozen=True)
class ExponentialBackoff:
    """Waits `initial`, then `multiplier` times as long for every further failure, up to `maximum`.

    `jitter` 0.1 spreads each wait evenly over 10 % either side, never above `maximum`. `random` returns numbers
    from 0 up to 1; a test passes its own. Raises `ValueError` where a value makes no sense.
    """

    initial: timedelta = timedelta(seconds=1)
    multiplier: float = 2.0
    maximum: timedelta = timedelta(minutes=5)
    jitter: float = 0.1
    random: Callable[[], float] = field(default=_random.random, repr=False, compare=False, kw_only=True)

    def __post_init__(self) -> None:
        _check_wait("initial", self.initial)
        _check_number("multiplier", self.multiplier, least=1.0)
        _check_maximum(self.initial, self.maximum)
        _check_number("jitter", self.jitter, least=0.0, most=1.0)

    def __call__(self, attempt: int) -> timedelta:
        _check_attempt(attempt)
        initial = self.initial.total_seconds()
        try:
            # Without the first test a zero wait would be multiplied by infinity.
            seconds = initial * float(self.multiplier) ** (attempt - 1) if initial else 0.0
        except OverflowError:
            seconds = math.inf
        return _spread(seconds, self.maximum, self.jitter, self.random)


@dataclass(frozen=True)
class LinearBackoff:
    """Waits `initial`, then `step` longer for every further failure, up to `maximum`.

    `jitter` and `random` are those of `ExponentialBackoff`. Raises `ValueError` where a value makes no sense.
    """

    initial: timedelta = timedelta(seconds=1)
    step: timedelta = timedelta(seconds=1)
    maximum: timedelta = timedelta(minutes=1)
    jitter: float = 0.0
    random: Callable[[], float] = field(default=_random.random, repr=False, compare=False, kw_only=True)

    def __post_init__(self) -> None:
        _check_wait("initial", self.initial)
        _check_wait("step", self.step)
        _check_maximum(self.initial, self.maximum)
        _check_number("jitter", self.jitter, least=0.0, most=1.0)

    def __call__(self, attempt: int) -> timedelta:
        _check_attempt(attempt)
        try:
            seconds = self.initial.total_seconds() + self.step.total_seconds() * (attempt - 1)
        except OverflowError:
            seconds = math.inf if self.step else self.initial.total_seconds()
        return _spread(seconds, self.maximum, self.jitter, self.random)


@dataclass(frozen=True)
class ConstantBackoff:
    """Waits `delay` before every retry. Zero: at once.

    `jitter` and `random` are those of `ExponentialBackoff`. Raises `ValueError` where a value makes no sense.
    """

    delay: timedelta
    jitter: float = 0.0
    random: Callable[[], float] = field(default=_random.random, repr=False, compare=False, kw_only=True)

    def __post_init__(self) -> None:
        _check_wait("delay", self.delay)
        _check_number("jitter", self.jitter, least=0.0, most=1.0)

    def __call__(self, attempt: int) -> timedelta:
        _check_attempt(attempt)
        if not self.jitter:
            return self.delay
        return _spread(self.delay.total_seconds(), timedelta.max, self.jitter, self.random)


def _spread(seconds: float, maximum: timedelta, jitter: float, random: Callable[[], float]) -> timedelta:
    # Cut before the jitter too: at the maximum, keys that failed together must still be spread.
    seconds = min(seconds, maximum.total_seconds())
    if jitter:
        seconds *= 1.0 + jitter * (2.0 * random() - 1.0)
    if seconds >= maximum.total_seconds():
        return maximum
    return max(timedelta(seconds=seconds), _ZERO)


def _check_attempt(attempt: int) -> None:
    if attempt < 1:
        raise ValueError(f"attempt counts from 1, not {attempt}")


def _check_wait(name: str, value: object) -> None:
    if not isinstance(value, timedelta):
        raise ValueError(f"{name} must be a timedelta such as timedelta(seconds=1), not {value!r}")
    if value < _ZERO:
        raise ValueError(f"{name} must not be negative, not {value}")


def _check_maximum(initial: timedelta, maximum: object) -> None:
    _check_wait("maximum", maximum)
    if isinstance(maximum, timedelta) and maximum < initial:
        raise ValueError(f"maximum ({maximum}) must not be below initial ({initial})")


def _check_number(name: str, value: object, *, least: float, most: float = math.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, not {value!r}")
    if not least <= value <= most:
        bounds = f"at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
        raise ValueError(f"{name} must be {bounds}, not {value!r}")


_POLICIES: dict[str, tuple[Callable[..., BackoffPolicy], frozenset[str]]] = {
    "exponential": (ExponentialBackoff, frozenset({"initial", "multiplier", "maximum", "jitter"})),
    "linear": (LinearBackoff, frozenset({"initial", "step", "maximum", "jitter"})),
    "constant": (ConstantBackoff, frozenset({"delay", "jitter"})),
}


def backoff_from(mapping: Mapping[str, object]) -> BackoffPolicy:
    """The policy that a mapping of a file or of the environment describes.

    `policy` is `exponential` (also where it is absent), `linear` or `constant`; the other keys are the policy's own,
    durations as text. `constant` takes `initial` as another word for `delay`. Raises `ValueError`.
    """
    values = dict(mapping)
    policy = values.pop("policy", "exponential")
    if not isinstance(policy, str) or policy not in _POLICIES:
        raise ValueError(f"policy {policy!r} is none of {', '.join(_POLICIES)}")
    build, allowed = _POLICIES[policy]
    if policy == "constant" and "initial" in values and "delay" not in values:
        values["delay"] = values.pop("initial")
    if policy == "constant" and "delay" not in values:
        raise ValueError("a constant policy needs its delay, as `delay` or `initial`")
    if unknown := sorted(str(name) for name in values.keys() - allowed):
        raise ValueError(f"{policy} has no {', '.join(unknown)}, but {', '.join(sorted(allowed))}")
    return build(**{name: _read(name, value) for name, value in values.items()})


def _read(name: str, value: object) -> object:
    try:
        if name in ("multiplier", "jitter"):
            return float(value) if isinstance(value, str) else value
        return parse_duration(value)
    except ValueError:
        raise ValueError(
            f"{name} {value!r} is not {'a number' if name in ('multiplier', 'jitter') else 'a duration'}"
        ) from None
