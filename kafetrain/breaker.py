"""When retrying each record by itself has become pointless: the numbers of the breaker that `Settings` may have.

It is a value: frozen, comparable, safe to share between threads. What it does with them is in `core/breaker.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import timedelta

from kafetrain.durations import parse_duration

__all__ = ["Breaker", "breaker_from"]

_ZERO = timedelta(0)
MIN_KEYS = 2
"""With one, a single record that never succeeds would hold up its topic."""


@dataclass(frozen=True)
class Breaker:
    """Opens when `keys` different keys of a topic in a row failed with the same class of retriable error, all of it
    within `window`. A success in between starts the count again.

    While it is open the topic's partitions pause. After `probe_after` one record runs; as long as that fails the same
    way, the next one runs after twice the wait, up to `probe_at_most`. Raises `ValueError` where a value makes no
    sense.
    """

    keys: int = 20
    window: timedelta = timedelta(seconds=10)
    probe_after: timedelta = timedelta(seconds=1)
    probe_at_most: timedelta = timedelta(seconds=30)

    def __post_init__(self) -> None:
        if isinstance(self.keys, bool) or not isinstance(self.keys, int) or self.keys < MIN_KEYS:
            raise ValueError(f"keys must be a whole number of at least {MIN_KEYS}, not {self.keys!r}")
        for name in ("window", "probe_after", "probe_at_most"):
            value = getattr(self, name)
            if not isinstance(value, timedelta):
                raise ValueError(f"{name} must be a timedelta such as timedelta(seconds=1), not {value!r}")
            if value <= _ZERO:
                raise ValueError(f"{name} must be longer than nothing, not {value}")
        if self.probe_at_most < self.probe_after:
            raise ValueError(f"probe_at_most ({self.probe_at_most}) must not be below probe_after ({self.probe_after})")


def breaker_from(mapping: Mapping[str, object]) -> Breaker:
    """The breaker that a mapping of a file or of the environment describes, durations as text. Raises `ValueError`."""
    known = [field.name for field in fields(Breaker)]
    if unknown := sorted(str(name) for name in mapping.keys() - set(known)):
        raise ValueError(f"a breaker has no {', '.join(unknown)}, but {', '.join(known)}")
    values: dict[str, object] = dict(mapping)
    for name in values.keys() - {"keys"}:
        try:
            values[name] = parse_duration(values[name])
        except ValueError:
            raise ValueError(f"{name} {values[name]!r} is not a duration") from None
    if isinstance(text := values.get("keys"), str) and text.strip().isdecimal():
        values["keys"] = int(text)
    return Breaker(**values)  # type: ignore[arg-type]  # the class itself checks them
