"""What every command that changes something does alike: says what it will do, asks, and leaves who asked and why."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from kafetrain.cli.errors import FAILED, WRONG_USAGE

if TYPE_CHECKING:
    from kafetrain.client.ports import Client
    from kafetrain.settings import Settings

__all__ = ["By", "ReasonText", "Yes", "confirm", "connect"]

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
By = Annotated[str | None, typer.Option("--by", help="Who asks for it, for the record.", show_default="user@host")]
ReasonText = Annotated[str | None, typer.Option("--reason-text", help="Why, for the record.")]


def connect(settings: Settings) -> Client:
    from kafetrain.client.choose import client_for

    return client_for(settings)


def confirm(plan: str, yes: bool) -> None:
    """Say what will be done, and ask; with `yes` go on at once.

    Exit code 2 where nobody can be asked, 1 where the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        typer.echo(f"error: {plan} Nobody can be asked here, stdin being no terminal: --yes does it", err=True)
        raise typer.Exit(WRONG_USAGE)
    typer.echo(plan, err=True)
    if not typer.confirm("Go on?", err=True):
        typer.echo("nothing was changed", err=True)
        raise typer.Exit(FAILED)
