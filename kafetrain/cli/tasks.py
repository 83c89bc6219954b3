"""`kafetrain tasks`: submit tasks to a retry service, and look after them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kafetrain.cli.errors import FAILED
from kafetrain.cli.shared import AsJson, print_json
from kafetrain.cli.wording import safe
from kafetrain.errors import ConfigurationError

if TYPE_CHECKING:
    from kafetrain.service.client import Client

__all__ = ["app"]

app = typer.Typer(help="Tasks of a retry service.", no_args_is_help=True)

Url = Annotated[
    str, typer.Option("--url", envvar="KAFETRAIN_SERVICE_URL", help="Where the service is.", show_envvar=True)
]
TaskId = Annotated[str, typer.Argument(help="The task's id.", show_default=False)]
LOCAL = "http://127.0.0.1:8080"
BATCH = 500


@app.command()
def submit(
    file: Annotated[Path, typer.Argument(help="JSON: a task, a list, or one task a line. -: stdin.")], url: Url = LOCAL
) -> None:
    """Schedule the tasks of a file. The same again is harmless. Exit code 1: some were refused."""
    tasks = _read(file)
    refused = 0
    with _client(url) as client:
        for start in range(0, len(tasks), BATCH):
            for result in client.submit_many(tasks[start : start + BATCH]):
                if not result.is_stored:
                    refused += 1
                    typer.echo(safe(f"{result.task_id or 'a task without an id'}: {result.error}"), err=True)
    typer.echo(f"{len(tasks) - refused} of {len(tasks)} tasks scheduled")
    if refused:
        raise typer.Exit(FAILED)


@app.command("list")
def list_(
    state: Annotated[str | None, typer.Option(help="scheduled, delivered, dead_lettered or dead.")] = None,
    client_id: Annotated[str | None, typer.Option("--client")] = None,
    source: Annotated[str | None, typer.Option()] = None,
    search: Annotated[str | None, typer.Option(help="A piece of the id.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
    url: Url = LOCAL,
    as_json: AsJson = False,
) -> None:
    """List tasks, newest first in each state."""
    found: list[dict[str, Any]] = []
    with _client(url) as client:
        for task in client.tasks(state=state, client_id=client_id, source=source, search=search):
            found.append(task)
            if len(found) == limit:
                break
    if as_json:
        print_json(found)
        return
    for task in found:
        when = task["next_delivery_at"] or task["ended_at"]
        error = f"  {task['last_error']}" if task["last_error"] else ""
        typer.echo(safe(f"{task['id']}  {task['state']}  {task['attempt']}/{task['max_retries']}  {when}{error}"))
    if not found:
        typer.echo("no task matches", err=True)


@app.command()
def show(id: TaskId, url: Url = LOCAL, as_json: AsJson = False) -> None:
    """Show one task with its message and its deliveries."""
    with _client(url) as client:
        task = client.get(id)
    if as_json:
        print_json(task)
        return
    for name, value in task.items():
        if name not in ("attempts", "message_data") and value is not None:
            text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
            typer.echo(f"{name:<19} {safe(text)}")
    for one in task["attempts"]:
        result = one["error"] or "delivered"
        typer.echo(safe(f"  {one['at']}  {one['to']} {one['number']}: {result} ({one['seconds'] * 1000:.0f} ms)"))
    for line in task["message_data"].split("\n"):
        typer.echo(safe(line.replace("\t", "    ")))


@app.command()
def replay(id: TaskId, url: Url = LOCAL) -> None:
    """Give a dead task all its retries again, the first one now."""
    with _client(url) as client:
        client.replay(id)
    typer.echo(f"task {id} is scheduled again")


@app.command("retry-now")
def retry_now(id: TaskId, url: Url = LOCAL) -> None:
    """Make a task's next delivery due."""
    with _client(url) as client:
        client.retry_now(id)
    typer.echo(f"task {id} is due")


@app.command()
def delete(id: TaskId, url: Url = LOCAL) -> None:
    """Forget a task, whatever its state."""
    with _client(url) as client:
        client.delete(id)
    typer.echo(f"task {id} is deleted")


@contextmanager
def _client(url: str) -> Iterator[Client]:
    """With the key of `KAFETRAIN_SERVICE_KEY`: an option would show it in the list of processes."""
    import os

    from kafetrain.service import Client

    with Client(url, api_key=os.environ.get("KAFETRAIN_SERVICE_KEY"), tries=2) as client:
        yield client


def _read(file: Path) -> list[dict[str, Any]]:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"{file} cannot be read: {reason}") from None
    try:
        found = json.loads(text)
    except ValueError:
        try:
            found = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError:
            raise ConfigurationError(f"{file} is neither JSON nor one JSON object a line") from None
    tasks = found if isinstance(found, list) else [found]
    if not tasks or not all(isinstance(task, dict) for task in tasks):
        raise ConfigurationError(f"{file} has no tasks, or something else among them")
    return tasks
