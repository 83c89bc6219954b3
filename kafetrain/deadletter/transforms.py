"""Functions that change a payload before it runs again: found by name, and run over everything before a change."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from kafetrain.deadletter.letter import DeadLetter
from kafetrain.errors import ConfigurationError, KafetrainError
from kafetrain.record import Headers, Record

__all__ = ["Transform", "TransformError", "load_transform", "transform_name", "transformed"]

Transform: TypeAlias = Callable[[Record], "bytes | str | None"]
"""The new value of a record; text is encoded as UTF-8, None makes it a tombstone."""


class TransformError(KafetrainError):
    """A transform failed on a dead letter. Nothing was changed. Names the place and the error's type, no payload."""


@dataclass(frozen=True, slots=True)
class _Source:
    """What a transform sees: the record as a handler would."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp: int


def load_transform(name: str) -> Transform:
    """The function that `module:function` names. Raises `ConfigurationError`."""
    module_name, _, path = name.partition(":")
    if not module_name or not path:
        raise ConfigurationError(f"the transform is named module:function, not {name!r}")
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the transform {name}: there is no module {error.name}; it is looked for in the working directory and "
            f"where Python looks for modules"
        ) from None
    except Exception as error:
        raise ConfigurationError(
            f"the transform {name}: importing {module_name} raised {type(error).__name__}"
        ) from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise ConfigurationError(f"the transform {name}: {module_name} has no {path}")
        found = getattr(found, part)
    if not callable(found):
        raise ConfigurationError(f"the transform {name}: it is a {type(found).__name__}, not a function")
    return found


def transform_name(transform: Transform) -> str:
    """As `load_transform` reads it."""
    named = getattr(transform, "__qualname__", type(transform).__qualname__)
    return f"{getattr(transform, '__module__', '?')}:{named}"


def transformed(transform: Transform, letter: DeadLetter) -> bytes | None:
    """The new value. Raises `TransformError`."""
    if letter.id is None:
        raise ValueError("not a dead letter of ours")
    source = _Source(*letter.id[1:], letter.key, letter.value, letter.headers, letter.source_timestamp_ms)
    where = f"{letter.topic}[{letter.partition}]@{letter.offset} ({source.topic}[{source.partition}]@{source.offset})"
    try:
        value = transform(source)
    except Exception as error:
        raise TransformError(f"the transform raised {type(error).__name__} for {where}: nothing was changed") from error
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if value is None or isinstance(value, bytes):
        return value
    raise TransformError(
        f"the transform gave a {type(value).__name__} for {where}, and may give bytes, text or None: nothing "
        f"was changed"
    )
