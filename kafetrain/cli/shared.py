"""What several commands need: options, settings, the admin client, output."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from loguru import logger

if TYPE_CHECKING:
    from loguru import Record

    from kafetrain.app.config import Configuration
    from kafetrain.client.ports import AdminPort
    from kafetrain.settings import Settings

__all__ = [
    "AsJson",
    "Brokers",
    "Group",
    "Topic",
    "load_configuration",
    "open_admin",
    "print_json",
    "settings_for",
    "show_log_messages",
]

Topic = Annotated[str, typer.Argument(help="The source topic.", show_default=False)]
Brokers = Annotated[
    str | None,
    typer.Option("--brokers", help="host:port, several with commas; else as `config show` says."),
]
Group = Annotated[str | None, typer.Option("--group", help="Consumer group; else as `config show` says.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def settings_for(
    brokers: str | None = None, group: str | None = None, *, group_needed: bool = True, **more: Any
) -> Settings:
    """Those that an app in this directory has, with options on top. Raises `ConfigurationError`.

    `group_needed=False`: where none is set, work without, as long as no name is made with it.
    """
    from kafetrain.errors import ConfigurationError
    from kafetrain.settings import Settings

    class GroupOptional(Settings):
        group_id: str = "none"

    kind = Settings if group_needed else GroupOptional
    settings = load_configuration(None, kind, bootstrap_servers=brokers, group_id=group, **more).settings
    if "group_id" not in settings.model_fields_set and "{group}" in settings.topic_format:
        raise ConfigurationError(
            f"topic_format {settings.topic_format!r} has the group in it: pass --group, or set KAFETRAIN_GROUP_ID"
        )
    return settings


def load_configuration(file: Path | None, kind: type[Settings] | None = None, **code: Any) -> Configuration:
    """Of the file that is named, or of the one in the working directory. Raises `ConfigurationError`.

    `kind`: what to make of the settings, `Settings` itself if not given.
    """
    from kafetrain.app.config import Configuration
    from kafetrain.app.config_file import DEFAULT_FILES
    from kafetrain.settings import Settings

    if file is None:
        file = next((path for name in DEFAULT_FILES if (path := Path(name)).exists()), None)
    given = {name: value for name, value in code.items() if value is not None}
    return Configuration.load(given, file, kind or Settings)


def connect_admin(settings: Settings) -> AdminPort:
    from kafetrain.client.choose import client_for

    return client_for(settings).admin()


@contextmanager
def open_admin(settings: Settings) -> Iterator[AdminPort]:
    """An admin client, closed afterwards."""
    admin = connect_admin(settings)
    try:
        yield admin
    finally:
        admin.close()


def print_json(data: object) -> None:
    """Data for another program, on stdout."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


def show_log_messages() -> None:
    """Warnings of the library as plain lines on stderr."""

    def line(record: Record) -> str:
        return f"{record['level'].name.lower()}: {{message}}\n"

    def write(message: str) -> None:
        typer.echo(message, err=True, nl=False)  # whatever stderr is at that moment

    logger.configure(handlers=[{"sink": write, "format": line, "level": "WARNING"}])
    logger.enable("kafetrain")
