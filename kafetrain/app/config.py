"""The configuration of an app, put together: code over `KAFETRAIN_...` over `KAFKA_...` over a file over defaults.

Short names stand beside those of `Settings`, as many services have them already: `brokers`, `group`, `topics`,
`auto_commit`, `start_from_beginning`, `session_timeout_ms`, `heartbeat_interval_ms`. Each value keeps where it came
from, so that `kafetrain config show` can say it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from kafetrain import settings_checks as checks
from kafetrain.app.config_file import read_section
from kafetrain.errors import ConfigurationError
from kafetrain.settings import Settings

__all__ = ["Configuration", "known_names"]

DEFAULT, CODE = "default", "code"

_VARIABLES = ("brokers", "group", "topics", "auto_commit", "start_from_beginning")
"""Understood as `KAFKA_...`. Others of that prefix are other programs'."""

_SAME = {"brokers": "bootstrap_servers", "group": "group_id", "start_from_beginning": "auto_offset_reset"}
_OPTIONS = ("session_timeout_ms", "heartbeat_interval_ms")
_OWN = ("topics", "auto_commit")


def known_names() -> list[str]:
    """Every name that a file or an app's arguments may have."""
    return [*Settings.model_fields, *_SAME, *_OPTIONS, *_OWN]


@dataclass(frozen=True)
class Configuration:
    """What holds in the end, and where each of it comes from."""

    settings: Settings
    topics: list[str]
    """Those that handlers without topics of their own serve."""
    auto_commit: bool
    """Commit records also where their handler failed and nothing retries them: those are lost."""
    origins: Mapping[str, str]

    @classmethod
    def load(
        cls, code: Mapping[str, Any] | None = None, file: str | Path | None = None, kind: type[Settings] = Settings
    ) -> Configuration:
        """Raises one `ConfigurationError` that names what is wrong, and where it is from. Connects to nothing.

        `kind`: what to make of the settings, for commands that need less of them.
        """
        found = _Layers()
        if file is not None:
            found.put(read_section(file, known_names()), lambda name: f"{file}")
        variables = _variables()
        found.put(_of_kafka(variables), lambda name: variables[f"KAFKA_{name.upper()}"].origin)
        found.put(_of_kafetrain(variables), lambda name: variables[f"KAFETRAIN_{name.upper()}"].origin)
        found.put(_checked(code or {}), lambda name: CODE)
        return cls(found.settings(kind), found.topics(), found.auto_commit(), found.all_origins())


@dataclass(frozen=True)
class _Variable:
    text: str
    origin: str


@dataclass
class _Layers:
    """Values by their names in `Settings`; a later layer wins."""

    values: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def put(self, layer: Mapping[str, Any], origin: Callable[[str], str]) -> None:
        for short, long in _SAME.items():
            if short in layer and long in layer:
                raise ConfigurationError(f"{origin(short)}: {short} and {long} are the same; set one of them")
        for name, value in layer.items():
            target = _SAME.get(name, name)
            if name == "start_from_beginning":
                value = "earliest" if _yes(value, name, origin(name)) else "latest"
            elif name == "auto_commit":
                value = _yes(value, name, origin(name))
            elif name == "topics":
                value = _topics(value, origin(name))
            if name in _OPTIONS:
                self._set_options({name: _milliseconds(value, name, origin(name))})
                target = "client_options"
            elif name == "client_options":
                self._set_options(_mapping(value, origin(name)))
            else:
                self.values[target] = value
            is_named = name == target or name.upper() in origin(name)
            said = origin(name) if is_named else f"{origin(name)} ({name})"
            earlier = self.origins.get(target, "")
            self.origins[target] = f"{earlier}, {said}" if target == "client_options" and earlier else said

    def _set_options(self, options: Mapping[str, Any]) -> None:
        for name, value in options.items():
            self.options.pop(name, None)  # so that the order is that of the layers
            self.options[name] = value

    def _named_options(self) -> dict[str, Any]:
        """By the client's names, which those of ours are already where it is kafka-python."""
        if self.values.get("client") != "confluent":
            return self.options
        return {name.replace("_", ".") if name in _OPTIONS else name: value for name, value in self.options.items()}

    def settings(self, kind: type[Settings]) -> Settings:
        values = {name: value for name, value in self.values.items() if name not in _OWN}
        if self.options:
            values["client_options"] = self._named_options()
        try:
            return kind(**values)
        except ConfigurationError as error:
            problem = str(error)
        named = {name: place for name, place in self.origins.items() if name in problem and place != CODE}
        said = ", ".join(f"{name} is from {place}" for name, place in sorted(named.items()))
        raise ConfigurationError(f"{problem} ({said})" if said else problem)

    def topics(self) -> list[str]:
        return list(self.values.get("topics", []))

    def auto_commit(self) -> bool:
        return bool(self.values.get("auto_commit", False))

    def all_origins(self) -> dict[str, str]:
        return {name: self.origins.get(name, DEFAULT) for name in (*Settings.model_fields, *_OWN)}


def _variables() -> dict[str, _Variable]:
    """By their names in capitals; those that are empty count as not set."""
    found: dict[str, _Variable] = {}
    try:
        in_file = dotenv_values(".env")
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f".env cannot be read: {type(error).__name__}") from None
    for name, text in in_file.items():
        if text:
            found[name.upper()] = _Variable(text, f"{name.upper()} in .env")
    for name, text in os.environ.items():
        if text:
            found[name.upper()] = _Variable(text, name.upper())
    return found


def _of_kafka(variables: Mapping[str, _Variable]) -> dict[str, str]:
    return {
        name: variables[f"KAFKA_{name.upper()}"].text for name in _VARIABLES if f"KAFKA_{name.upper()}" in variables
    }


def _of_kafetrain(variables: Mapping[str, _Variable]) -> dict[str, str]:
    names: Iterable[str] = (*Settings.model_fields, *_OWN)
    return {
        name: variables[f"KAFETRAIN_{name.upper()}"].text for name in names if f"KAFETRAIN_{name.upper()}" in variables
    }


def _checked(code: Mapping[str, Any]) -> Mapping[str, Any]:
    known = known_names()
    if unknown := [f"{name} is unknown{checks.nearest(name, known)}" for name in code if name not in known]:
        raise ConfigurationError("; ".join(unknown))
    return code


def _yes(value: object, name: str, origin: str) -> bool:
    text = f"{value}".strip().lower()
    if text in ("true", "yes", "on", "1"):
        return True
    if text in ("false", "no", "off", "0"):
        return False
    raise ConfigurationError(f"{name} = {value!r:.40} (from {origin}) may be true or false")


def _milliseconds(value: object, name: str, origin: str) -> int:
    text = f"{value}".strip()
    if isinstance(value, bool) or not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise ConfigurationError(f"{name} = {value!r:.40} (from {origin}) must be a whole number of milliseconds")
    return int(text)


def _topics(value: object, origin: str) -> list[str]:
    names = checks.texts(value)
    if names is None:
        raise ConfigurationError(f"topics (from {origin}) must be names, as a list or separated by commas")
    return list(dict.fromkeys(names))


def _mapping(value: object, origin: str) -> dict[str, Any]:
    try:
        return checks.json_mapping(value)
    except ValueError as error:
        raise ConfigurationError(f"client_options (from {origin}): {error}; it may be a mapping") from None
