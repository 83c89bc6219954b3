"""The `kafetrain` command.

Each command lives in a module of its own, which imports what it needs when it runs: `kafetrain --help` must not wait
for a Kafka client. To add one, write `kafetrain/cli/NAME.py` with a function, or with a `typer.Typer` called `app` for
several, and register it below.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from kafetrain.cli import config, dlq, doctor, inspect, keys, locks, run, serve, tasks, topics
from kafetrain.cli.demo import command as demo
from kafetrain.cli.errors import ErrorBoundary
from kafetrain.cli.shared import show_log_messages

__all__ = ["app", "main"]

app = typer.Typer(
    cls=ErrorBoundary,
    help="Ordered retries on Kafka.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(topics.app, name="topics")
app.add_typer(dlq.app, name="dlq")
app.add_typer(keys.app, name="keys")
app.command()(locks.locks)
app.command()(inspect.inspect)
app.command()(demo.demo)
app.command()(run.run)
app.add_typer(config.app, name="config")
app.command()(doctor.doctor)
app.command()(serve.serve)
app.add_typer(tasks.app, name="tasks")


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(version("kafetrain"))
        except PackageNotFoundError:
            typer.echo("unknown: run from its sources, not installed")
        raise typer.Exit


@app.callback()
def _before_every_command(
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error comes from.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    show_log_messages()


def main() -> None:
    """Run the command line and exit: 0 fine, 1 failed, 2 wrong usage or settings, 130 interrupted."""
    try:
        app(prog_name="kafetrain")
    except KeyboardInterrupt:  # outside of any command: while it was still being looked up
        sys.exit(130)
