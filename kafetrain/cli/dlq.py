"""`kafetrain dlq`: see dead letters, and decide what becomes of their keys."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kafetrain.cli.changes import connect
from kafetrain.cli.key_changes import (
    By,
    Change,
    Id,
    Key,
    NoWait,
    ReasonText,
    Timeout,
    Yes,
    carry_out,
    change_keys,
    described,
    plan_as_json,
    which,
)
from kafetrain.cli.progress import progress_bar
from kafetrain.cli.shared import AsJson, Brokers, Group, Topic, print_json, settings_for
from kafetrain.cli.wording import counted
from kafetrain.errors import ConfigurationError

if TYPE_CHECKING:
    from kafetrain.deadletter import DeadLetters, Plan

__all__ = ["app"]

app = typer.Typer(help="Dead letters: see them, release or replay their keys.", no_args_is_help=True)

Reason = Annotated[str | None, typer.Option("--reason", help="A part of the error's type or text, in whatever case.")]


@app.command("list")
def list_letters(
    topic: Topic,
    key: Key = None,
    state: Annotated[
        list[str] | None, typer.Option("--state", help="exhausted, not-retriable, parked, ...; may be repeated.")
    ] = None,
    all_states: Annotated[
        bool, typer.Option("--all-states", help="Also copies and marks that commands have left.")
    ] = False,
    reason: Reason = None,
    since: Annotated[
        str | None, typer.Option("--since", help="A time (2030-01-31T12:00), or so long ago (2h).")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", help="As --since; that moment itself is left out.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Stop after so many.")] = None,
    newest_first: Annotated[bool, typer.Option("--newest-first", help="Begin with the newest.")] = False,
    summary: Annotated[bool, typer.Option("--summary", help="Count them by reason and by key instead.")] = False,
    brokers: Brokers = None,
    group: Group = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters, oldest first, as they are read.

    In JSON: an array with one object a line, which can be read before it ends.
    """
    from itertools import islice

    from kafetrain.cli.dlq_output import Summary, print_rows
    from kafetrain.deadletter import DeadLetters

    wanted = _filter(key, state, all_states, reason, since, until)
    settings = settings_for(brokers, group)
    with DeadLetters(settings, topic, connect(settings)) as letters, progress_bar("reading dead letters") as progress:
        found = islice(letters.scan(wanted, newest_first=newest_first, progress=progress), limit)
        if summary:
            counted = Summary.of(found)
        else:
            count = print_rows(found, as_json)
    if summary:
        count = counted.total
        counted.print(as_json)
    if not count:
        typer.echo(f"group {settings.group_id} has no such dead letter of {topic}", err=True)


@app.command()
def show(
    topic: Topic,
    at: Annotated[str, typer.Option("--at", help="PARTITION:OFFSET in the dead-letter topic, as `list` shows it.")],
    payload: Annotated[str, typer.Option("--payload", help="text, json or hex; auto: what fits.")] = "auto",
    full: Annotated[bool, typer.Option("--full", help="The whole payload, however long.")] = False,
    brokers: Brokers = None,
    group: Group = None,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter: its headers, why it died, and its payload."""
    from kafetrain.cli.dlq_output import FORMATS, print_letter
    from kafetrain.deadletter import DeadLetters

    if payload not in FORMATS:
        raise ConfigurationError(f"--payload is one of {', '.join(FORMATS)}, not {payload!r}")
    partition, _, offset = at.partition(":")
    if not (partition.isdecimal() and offset.isdecimal()):
        raise ConfigurationError(f"--at is PARTITION:OFFSET, such as 0:17, not {at!r}")
    settings = settings_for(brokers, group)
    with DeadLetters(settings, topic, connect(settings)) as letters:
        print_letter(letters.show(int(partition), int(offset)), payload, full, as_json)


@app.command()
def release(
    topic: Topic,
    key: Key = None,
    id: Id = None,
    reason: Reason = None,
    all: Annotated[bool, typer.Option("--all", help="All dead keys.")] = False,
    yes: Yes = False,
    no_wait: NoWait = False,
    timeout: Timeout = "60s",
    by: By = None,
    reason_text: ReasonText = None,
    brokers: Brokers = None,
    group: Group = None,
    as_json: AsJson = False,
) -> None:
    """Forget the dead record of a key: what comes next of it runs.

    The dead letter stays where it is, and so does what was parked behind it. Done again, it changes nothing.
    """
    keys = which(key=key, id=id, reason=reason, all=all)
    change = Change(yes, no_wait, timeout, by, reason_text, as_json)
    change_keys(
        topic,
        settings_for(brokers, group),
        change,
        lambda letters: letters.plan_release(**keys),
        lambda plan: f"Releases {counted(len(plan.targets), 'dead key')} of {topic}.",
    )


@app.command()
def replay(
    topic: Topic,
    key: Key = None,
    id: Id = None,
    reason: Reason = None,
    all: Annotated[bool, typer.Option("--all", help="All dead keys.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would run, in which order.")] = False,
    transform: Annotated[
        str | None, typer.Option("--transform", help="module:function that gives each payload anew.")
    ] = None,
    rate: Annotated[str | None, typer.Option("--rate", help="At most so many records a second: 50 or 50/s.")] = None,
    append: Annotated[
        bool, typer.Option("--append", help="Also dead letters of keys that are not dead, behind what these did since.")
    ] = False,
    yes: Yes = False,
    no_wait: NoWait = False,
    timeout: Timeout = "60s",
    by: By = None,
    reason_text: ReasonText = None,
    brokers: Brokers = None,
    group: Group = None,
    as_json: AsJson = False,
) -> None:
    """Run the dead record of a key and what was parked behind it again, in order, before anything newer.

    Done again, it changes nothing. Where dead keys are freed (free_on_dlq) they are appended instead.
    """
    from kafetrain.deadletter import DeadLetters

    keys, per_second = which(key=key, id=id, reason=reason, all=all), _rate(rate)
    settings = settings_for(brokers, group)
    if transform is not None:
        sys.path.insert(0, "")  # a module of the working directory, as `python -m` has it
        from kafetrain.deadletter.transforms import load_transform

        load_transform(transform)  # a wrong name is told before anything is read
    with DeadLetters(settings, topic, connect(settings)) as letters:
        with progress_bar("reading dead letters") as progress:
            plan = letters.plan_replay(
                append=True if append else None, with_payloads=transform is not None, progress=progress, **keys
            )
        if dry_run:
            _say(letters, plan, transform, as_json)
            return
        change = Change(yes, no_wait, timeout, by, reason_text, as_json)
        carry_out(letters, plan, change, _question(plan), transform=transform, rate=per_second)


def _question(plan: Plan) -> str:
    text = f"Runs {counted(plan.records, 'record')} of {plan.topic} again."
    if plan.appended:
        text += f" {plan.appended} of them behind what their keys have done since, out of order."
    return text


def _say(letters: DeadLetters, plan: Plan, transform: str | None, as_json: bool) -> None:
    if transform is not None:
        changed = letters.check_transform(plan, transform)
        typer.echo(f"{transform} changes {changed} of {plan.records} payloads", err=True)
    for sentence in plan.nothing:
        typer.echo(sentence, err=True)
    if as_json:
        print_json(plan_as_json(plan))
        return
    for line in described(plan.targets):
        typer.echo(line)
    if plan.targets:
        typer.echo(f"would run {counted(plan.records, 'record')}; nothing was changed", err=True)
    if plan.appended:
        typer.echo(f"{plan.appended} of them behind what their keys have done since, out of order", err=True)


def _rate(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        rate = float(text.removesuffix("/s"))
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise ConfigurationError(f"--rate is a number of records a second above 0, such as 50/s, not {text!r}")
    return rate


def _filter(
    key: str | None,
    states: list[str] | None,
    marks: bool,
    reason: str | None,
    since: str | None,
    until: str | None,
) -> Any:
    from kafetrain.core.headers import DeadLetterState
    from kafetrain.deadletter import Filter, parse_key
    from kafetrain.deadletter.letter import UNKNOWN

    known = [*(value for name, value in vars(DeadLetterState).items() if name.isupper()), UNKNOWN]
    for state in states or ():
        if state not in known:
            raise ConfigurationError(f"--state is one of {', '.join(known)}, not {state!r}")
    return Filter(
        key=None if key is None else parse_key(key),
        states=states or None,
        marks=marks,
        reason=reason,
        since_ms=_moment("--since", since),
        until_ms=_moment("--until", until),
    )


def _moment(option: str, text: str | None) -> int | None:
    """A time, or one so long ago, as ms since the epoch."""
    import time
    from datetime import datetime

    from kafetrain.durations import parse_duration

    if text is None:
        return None
    try:
        return int(time.time() * 1000 - parse_duration(text).total_seconds() * 1000)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise ConfigurationError(
            f"{option} is a time such as 2030-01-31T12:00 (of this machine, unless it has a zone), or a duration "
            f"such as 2h, not {text!r}"
        ) from None
    return int(moment.timestamp() * 1000)
