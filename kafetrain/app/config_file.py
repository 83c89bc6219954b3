"""A configuration file: YAML or TOML with one section, `kafka`."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from kafetrain.errors import ConfigurationError
from kafetrain.settings_checks import nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["DEFAULT_FILES", "SECTION", "read_section"]

SECTION = "kafka"

DEFAULT_FILES = ("kafetrain.yaml", "kafetrain.yml", "kafetrain.toml")


def read_section(path: str | Path, known: Collection[str]) -> dict[str, Any]:
    """What the file says under `kafka`; nothing where it is empty. `known`: the names that may be there.

    Raises `ConfigurationError` in one sentence, which quotes names and never values.
    """
    path = Path(path)
    if path.suffix not in (".yaml", ".yml", ".toml"):
        raise ConfigurationError(f"{path} is neither .yaml nor .yml nor .toml, so nobody knows how to read it")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigurationError(f"{path} does not exist") from None
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {type(error).__name__}") from None
    whole = _mapping(_parsed(path, text), f"{path}")
    for name in whole.keys() - {SECTION}:
        hint = f"; it belongs under {SECTION}:" if name in known else nearest(f"{name}", [SECTION])
        raise ConfigurationError(f"{path}: {name} is unknown{hint or f'; there is {SECTION}'}")
    section = _mapping(whole.get(SECTION), f"{path}: {SECTION}")
    if unknown := [name for name in section if name not in known]:
        said = "; ".join(f"{SECTION}.{name} is unknown{nearest(f'{name}', known)}" for name in unknown)
        raise ConfigurationError(f"{path}: {said}")
    return section


def _parsed(path: Path, text: str) -> object:
    # Their own texts quote the line that is wrong, which may hold a password.
    try:
        return tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f" in line {mark.line + 1}, column {mark.column + 1}"
        raise ConfigurationError(f"{path} is no YAML: something is wrong{where}") from None
    except (yaml.YAMLError, tomllib.TOMLDecodeError):
        raise ConfigurationError(f"{path} is no {'TOML' if path.suffix == '.toml' else 'YAML'}") from None


def _mapping(value: object, what: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{what} must be a mapping of names to values, not {type(value).__name__}")
    return dict(value)
