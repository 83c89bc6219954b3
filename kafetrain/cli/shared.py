"""What several commands need: options, settings, the admin client, output."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from loguru import logger

if TYPE_CHECKING:
    from loguru import Record

    from kafetrain.client.ports import AdminPort
    from kafetrain.settings import Settings

__all__ = ["AsJson", "Brokers", "Group", "Topic", "open_admin", "print_json", "settings_for", "show_log_messages"]

Topic = Annotated[str, typer.Argument(help="The source topic.", show_default=False)]
Brokers = Annotated[
    str | None,
    typer.Option("--brokers", help="host:port, several with commas; else KAFETRAIN_BOOTSTRAP_SERVERS."),
]
Group = Annotated[str | None, typer.Option("--group", help="Consumer group; else KAFETRAIN_GROUP_ID.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def settings_for(
    brokers: str | None = None, group: str | None = None, *, group_needed: bool = True, **more: Any
) -> Settings:
    """The settings of the environment and `.env`, with options on top. Raises `ConfigurationError`.

    `group_needed=False`: where none is set, work without, as long as no name is made with it.
    """
    from kafetrain.errors import ConfigurationError
    from kafetrain.settings import Settings

    class GroupOptional(Settings):
        group_id: str = "none"

    given = {"bootstrap_servers": brokers, "group_id": group, **more}
    kind = Settings if group_needed else GroupOptional
    settings = kind(**{name: value for name, value in given.items() if value is not None})
    if "group_id" not in settings.model_fields_set and "{group}" in settings.topic_format:
        raise ConfigurationError(
            f"topic_format {settings.topic_format!r} has the group in it: pass --group, or set KAFETRAIN_GROUP_ID"
        )
    return settings


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
