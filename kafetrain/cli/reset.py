"""`kafetrain topics reset` and `kafetrain topics forget`: end locks that nobody will ever end otherwise."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from kafetrain.cli.changes import By, ReasonText, Yes, connect
from kafetrain.cli.errors import FAILED
from kafetrain.cli.shared import AsJson, Brokers, Group, Topic, print_json, settings_for
from kafetrain.cli.wording import counted

if TYPE_CHECKING:
    from kafetrain.operations.forget import Traces
    from kafetrain.operations.reset import FormerSelf, ResetDone
    from kafetrain.settings import Settings

__all__ = ["forget", "reset"]


def reset(
    topic: Topic,
    dead_letter: Annotated[
        bool, typer.Option("--dead-letter", help="Move pending records to the dead-letter topic first.")
    ] = False,
    drop: Annotated[bool, typer.Option("--forget", help="Drop pending records.")] = False,
    brokers: Brokers = None,
    group: Group = None,
    yes: Yes = False,
    by: By = None,
    reason_text: ReasonText = None,
    as_json: AsJson = False,
) -> None:
    """End the locks of a topic that was deleted and created again, so that the group can start on the new one.

    The group must be stopped. Where the topic is still the same, nothing is done.
    """
    from kafetrain.deadletter.audits import new_audit
    from kafetrain.errors import ConfigurationError
    from kafetrain.operations.reset import ResetDone, TopicReset

    if dead_letter == drop:
        raise ConfigurationError(
            "say what becomes of pending records: --dead-letter moves them to the dead-letter topic, --forget drops "
            "them"
        )
    settings = settings_for(brokers, group)
    with TopicReset(connect(settings), settings, topic) as resetting:
        former = resetting.look()
        if former.partitions:
            resetting.check_at_rest()
            _confirm(_plan(topic, settings, former, dead_letter), yes)
            done = resetting.run(new_audit(by=by, why=reason_text), dead_letter=dead_letter)
        else:
            done = ResetDone(former)
    if as_json:
        print_json(_as_json(topic, settings, done))
    elif not done.former.partitions:
        typer.echo(f"group {settings.group_id} has no lock of a former {topic}: nothing to reset")
    else:
        _print(topic, settings, done)


def forget(
    group: Annotated[str, typer.Argument(help="The consumer group that is gone.", show_default=False)],
    topics: Annotated[
        list[str], typer.Option("--topic", help="A source topic of the group; may be repeated.", show_default=False)
    ],
    brokers: Brokers = None,
    yes: Yes = False,
    by: By = None,
    reason_text: ReasonText = None,
    as_json: AsJson = False,
) -> None:
    """Remove a group that is gone: its locks and its registration, so that the topics can be purged for others.

    Records of the group that still wait are never retried. The group must have no members.
    """
    from kafetrain.deadletter.audits import new_audit
    from kafetrain.operations.forget import GroupRemoval

    settings = settings_for(brokers, group)
    with GroupRemoval(connect(settings), settings, topics) as removal:
        traces = removal.look()
        if any(found.partitions for found in traces):
            removal.check_at_rest()
            _confirm(_losses(group, traces), yes)
            traces = removal.run(new_audit(by=by, why=reason_text))
    if as_json:
        print_json({"group": group, "topics": [_traces_as_json(found) for found in traces]})
        return
    for found in traces:
        if found.partitions:
            typer.echo(
                f"{found.topic}: {counted(found.locks.pending, 'pending record')} lost, "
                f"{counted(found.locks.dead, 'dead record')} forgotten, group {group} is registered no longer"
            )
        else:
            typer.echo(f"{found.topic}: nothing of group {group}")


def _confirm(what: str, yes: bool) -> None:
    """Ask on a terminal; returns where the answer is yes. Without a terminal `--yes` must have been given."""
    from kafetrain.errors import ConfigurationError

    if yes:
        return
    if not _is_terminal():
        raise ConfigurationError(f"{what} Nobody can be asked here, since stdin is no terminal: pass --yes to do it")
    if not typer.confirm(f"{what} Go on?", err=True):
        typer.echo("nothing was changed", err=True)
        raise typer.Exit(FAILED)


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _plan(topic: str, settings: Settings, former: FormerSelf, dead_letter: bool) -> str:
    fate = "will be dead-lettered" if dead_letter else "will be dropped"
    return (
        f"{topic} was deleted and created again. Of group {settings.group_id}, "
        f"{counted(former.locks.pending, 'pending record')} {fate}, and "
        f"{counted(former.locks.dead, 'dead record')} forgotten."
    )


def _print(topic: str, settings: Settings, done: ResetDone) -> None:
    pending = f"{done.dead_lettered} dead-lettered, {done.dropped} dropped"
    typer.echo(f"pending records: {pending}; dead ones forgotten: {done.former.locks.dead}")
    if done.rewound:
        typer.echo(
            f"committed offsets of the former topic, set to the beginning: partition "
            f"{', '.join(map(str, done.rewound))} of {topic}"
        )
    typer.echo(f"group {settings.group_id} can start on the new {topic}")


def _as_json(topic: str, settings: Settings, done: ResetDone) -> dict[str, object]:
    former = done.former
    return {
        "topic": topic,
        "group": settings.group_id,
        "reset": bool(former.partitions),
        "topic_id": former.topic_id,
        "former_topic_ids": list(former.former_ids),
        "redirect_partitions": list(former.partitions),
        "dead_lettered": done.dead_lettered,
        "dropped": done.dropped,
        "dead_forgotten": former.locks.dead,
        "rewound_partitions": list(done.rewound),
    }


def _losses(group: str, traces: list[Traces]) -> str:
    per_topic = ", ".join(
        f"{found.topic} {found.locks.pending} pending and {found.locks.dead} dead"
        for found in traces
        if found.partitions
    )
    return f"Group {group} loses its locks on {per_topic}; what is pending is never retried."


def _traces_as_json(found: Traces) -> dict[str, object]:
    return {
        "topic": found.topic,
        "removed": bool(found.partitions),
        "redirect_partitions": list(found.partitions),
        "pending_lost": found.locks.pending,
        "dead_forgotten": found.locks.dead,
    }
