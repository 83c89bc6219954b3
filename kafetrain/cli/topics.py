"""`kafetrain topics`: the auxiliary topics of a source topic. `reset` and `forget` are in a module of their own."""

from __future__ import annotations

import typer

from kafetrain.cli import reset
from kafetrain.cli.errors import FAILED
from kafetrain.cli.shared import AsJson, Brokers, Group, Topic, open_admin, print_json, settings_for

__all__ = ["app"]

app = typer.Typer(help="The retry, redirect and dead-letter topics of a source topic.", no_args_is_help=True)
app.command()(reset.reset)
app.command()(reset.forget)


@app.command()
def create(topic: Topic, brokers: Brokers = None, group: Group = None, as_json: AsJson = False) -> None:
    """Create what is missing, grow what is too short, and verify the rest.

    Existing topics keep their settings: where one would break a promise, the error says how to change it.
    """
    from kafetrain.topic_setup import prepare_topics

    settings = settings_for(brokers, group, group_needed=False, auto_create_topics=True)
    with open_admin(settings) as admin:
        ready = prepare_topics(admin, settings, topic)
    rows = [
        {
            "role": ready.names.role_of(name),
            "name": name,
            "partitions": ready.partitions[name],
            "created": name in ready.created,
        }
        for name in ready.names.auxiliary
    ]
    if as_json:
        partitions = ready.source_partitions
        print_json({"topic": topic, "partitions": partitions, "auxiliary": rows, "warnings": list(ready.warnings)})
        return
    for row in rows:
        state = "created" if row["created"] else "exists"
        typer.echo(f"{row['role']:<9} {row['name']}  {row['partitions']} partitions  {state}")


@app.command()
def verify(topic: Topic, brokers: Brokers = None, group: Group = None, as_json: AsJson = False) -> None:
    """Say what is wrong with the topics, and how to put it right; change nothing. Exit code 1: something is."""
    from kafetrain.topic_rules import commands_for
    from kafetrain.topic_setup import verify_topics

    settings = settings_for(brokers, group, group_needed=False)
    with open_admin(settings) as admin:
        problems = verify_topics(admin, settings, topic)
    commands = commands_for(problems, settings)
    is_good = all(problem.is_warning for problem in problems)
    if as_json:
        listed = [problem.as_json() for problem in problems]
        print_json({"topic": topic, "ok": is_good, "problems": listed, "commands": commands})
    else:
        for problem in problems:
            typer.echo(f"{'warning' if problem.is_warning else 'error'}: {problem}")
        if commands:
            typer.echo("put it right with:")
        for command in commands:
            typer.echo(f"  {command}")
        if not problems:
            typer.echo(f"{topic}: all topics are as they should be")
    if not is_good:
        raise typer.Exit(FAILED)
