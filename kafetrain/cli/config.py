"""`kafetrain config`: what holds, and where each value is from."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kafetrain.cli.shared import AsJson, load_configuration, print_json

if TYPE_CHECKING:
    from kafetrain.app.config import Configuration

__all__ = ["ConfigFile", "app"]

app = typer.Typer(help="The configuration of an app: its file, the environment, the defaults.", no_args_is_help=True)

ConfigFile = Annotated[
    Path | None,
    typer.Option("--file", help="YAML or TOML; else kafetrain.yaml, .yml or .toml in this directory, if there is one."),
]

_MASK = "********"
_SECRET = ("password", "secret", "token", "credential", "key")


@app.command()
def show(file: ConfigFile = None, as_json: AsJson = False) -> None:
    """Print every value, and where it is from. Secrets are masked."""
    configuration = load_configuration(file)
    values = shown_values(configuration)
    if as_json:
        origins = configuration.origins
        print_json({name: {"value": value, "from": origins[name]} for name, value in values.items()})
        return
    width = max(map(len, values))
    texts = {name: _text(value) for name, value in values.items()}
    column = min(40, max(map(len, texts.values())))
    for name, text in texts.items():
        typer.echo(f"{name:<{width}}  {text:<{column}}  {configuration.origins[name]}")


@app.command()
def check(file: ConfigFile = None) -> None:
    """Say whether the configuration can work, without connecting to anything. Exit code 2: it cannot, and why."""
    configuration = load_configuration(file)
    named = sum(origin != "default" for origin in configuration.origins.values())
    typer.echo(f"fine: {named} values set, {len(configuration.origins) - named} defaults")


def shown_values(configuration: Configuration) -> dict[str, Any]:
    """As JSON can have them, secrets masked."""
    from kafetrain.settings import Settings

    values = {name: getattr(configuration.settings, name) for name in Settings.model_fields}
    values |= {"topics": configuration.topics, "auto_commit": configuration.auto_commit}
    return {name: _plain(name, value) for name, value in values.items()}


def _plain(name: str, value: Any) -> Any:
    from kafetrain.durations import format_duration

    words = name.lower().replace(".", "_").split("_")  # librdkafka's names have dots
    if value is not None and any(word in words for word in _SECRET) and not isinstance(value, int):
        return _MASK
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, dict):
        return {inner: _plain(inner, item) for inner, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain("", item) for item in value]
    if isinstance(value, type):
        return value.__name__ if value.__module__ == "builtins" else f"{value.__module__}.{value.__qualname__}"
    return value if value is None or isinstance(value, bool | int | float | str) else _described(value)


def _described(value: Any) -> str:
    """A policy or another object: its fields where it has some, the name of a function."""
    if is_dataclass(value):
        shown = [
            f"{field.name}={_plain(field.name, getattr(value, field.name))}" for field in fields(value) if field.repr
        ]
        return f"{type(value).__name__}({', '.join(shown)})"
    return getattr(value, "__qualname__", None) or repr(value)


def _text(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value}"
