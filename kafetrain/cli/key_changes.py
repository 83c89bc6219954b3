"""What the commands that change keys do alike: choose them, show the plan, ask, carry it out, say what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kafetrain.cli.changes import By, ReasonText, Yes, confirm, connect
from kafetrain.cli.errors import FAILED
from kafetrain.cli.progress import progress_bar
from kafetrain.cli.shared import print_json
from kafetrain.cli.wording import counted
from kafetrain.errors import ConfigurationError

if TYPE_CHECKING:
    from kafetrain.deadletter import DeadLetters, Plan, Result, Target
    from kafetrain.settings import Settings

__all__ = [
    "By",
    "Change",
    "Id",
    "Key",
    "NoWait",
    "ReasonText",
    "Timeout",
    "Yes",
    "carry_out",
    "change_keys",
    "described",
    "plan_as_json",
    "which",
]

Key = Annotated[
    str | None, typer.Option("--key", help="The record key: text, base64:..., hex:..., or text:... for text as it is.")
]
Id = Annotated[str | None, typer.Option("--id", help="The message id, as `locks` shows it; for records without a key.")]
NoWait = Annotated[
    bool, typer.Option("--no-wait", help="Return once it is asked for; do not wait until it took effect.")
]
Timeout = Annotated[str, typer.Option("--timeout", help="How long nothing may take effect before it gives up waiting.")]

_SHOWN = 10
_DONE = {
    "release": "released",
    "replay": "replayed",
    "append": "put into retry again",
    "retry-now": "due now",
    "skip": "skipped",
}


@dataclass(frozen=True)
class Change:
    """How a command was asked to change something."""

    yes: bool
    no_wait: bool
    timeout: str
    by: str | None
    why: str | None
    as_json: bool = False

    @property
    def patience(self) -> timedelta:
        from kafetrain.durations import parse_duration

        try:
            return parse_duration(self.timeout)
        except ValueError as error:
            raise ConfigurationError(f"{self.timeout!r} is no duration such as 60s: {error}") from None


def which(**options: Any) -> dict[str, Any]:
    """The keys that are meant, from options of which exactly one is given. Else: wrong usage."""
    from kafetrain.deadletter import parse_key
    from kafetrain.record import MessageId

    given = {name: value for name, value in options.items() if value not in (None, False)}
    if len(given) != 1:
        names = [f"--{name}" for name in options]
        raise ConfigurationError(f"say which keys are meant: one of {', '.join(names[:-1])} or {names[-1]}")
    if "key" in given:
        return {"key": parse_key(given["key"])}
    if "id" in given:
        try:
            return {"id": MessageId.parse(given["id"])}
        except ValueError as error:
            raise ConfigurationError(f"{given['id']!r} is no message id: {error}") from None
    return given


def change_keys(
    topic: str,
    settings: Settings,
    change: Change,
    plan_of: Callable[[DeadLetters], Plan],
    question: Callable[[Plan], str],
) -> None:
    """Plan it, and `carry_out` the plan."""
    from kafetrain.deadletter import DeadLetters

    with DeadLetters(settings, topic, connect(settings)) as letters:
        plan = plan_of(letters)
        carry_out(letters, plan, change, question(plan))


def carry_out(letters: DeadLetters, plan: Plan, change: Change, question: str, **how: Any) -> None:
    """Ask, do it, report. Exit code 1: not all took effect in time."""
    for sentence in plan.nothing:
        typer.echo(sentence, err=True)
    patience = change.patience
    if plan.targets:
        confirm(_said(plan, question), change.yes)
    if not plan.targets:
        if change.as_json:
            print_json(plan_as_json(plan, None))
        return
    with progress_bar(f"{plan.action.value}") as progress:
        result = letters.carry_out(
            plan, by=change.by, why=change.why, wait=not change.no_wait, patience=patience, progress=progress, **how
        )
    if change.as_json:
        print_json(plan_as_json(plan, result))
    _report(result, change)


def _said(plan: Plan, question: str) -> str:
    lines = described(plan.targets[:_SHOWN])
    if len(plan.targets) > _SHOWN:
        lines.append(f"... and {len(plan.targets) - _SHOWN} more")
    return "\n".join([*lines, question])


def described(targets: tuple[Target, ...]) -> list[str]:
    """A line for each target: what would happen to which key."""
    lines = []
    for target in targets:
        line = f"{target.action.value} {name_of(target)}  {target.id}"
        if target.letters:
            places = ", ".join(f"{letter.partition}:{letter.offset}" for letter in target.letters[:_SHOWN])
            more = f" and {len(target.letters) - _SHOWN} more" if len(target.letters) > _SHOWN else ""
            line += f"  runs {len(target.letters)}: {places}{more}"
        lines.append(line)
    return lines


def name_of(target: Target) -> str:
    from kafetrain.deadletter import key_text

    key = key_text(target.key)
    return "(no key)" if key is None else key


def _report(result: Result, change: Change) -> None:
    from kafetrain.deadletter import Effect

    many = len(result.changes) > _SHOWN
    sentences: dict[Effect, Callable[[str], str]] = {
        Effect.DONE: lambda done: done,
        Effect.WRITTEN: lambda done: f"asked for; not waited until it is {done}",
        Effect.LATER: lambda done: f"asked for; no consumer of the group runs, and when one starts it will be {done}",
        Effect.LATE: lambda done: f"not {done} within {change.timeout}; it stays in the log and will be obeyed",
    }
    counts = Counter((one.effect, one.target.action) for one in result.changes)
    if many:
        for (effect, action), count in counts.items():
            what = counted(count, "dead letter" if action.value == "append" else "key")
            typer.echo(f"{what}: {sentences[effect](_DONE[action.value])}", err=True)
    else:
        for one in result.changes:
            text = sentences[one.effect](_DONE[one.target.action.value])
            letters = f" ({counted(len(one.target.letters), 'record')})" if one.target.letters else ""
            typer.echo(f"{name_of(one.target)}{letters}: {text}", err=True)
    if result.plan.appended:
        typer.echo(
            f"{result.plan.appended} ran behind what their keys have done since: newer records of a key may have "
            f"passed them",
            err=True,
        )
    if result.count(Effect.LATE):
        raise typer.Exit(FAILED)


def plan_as_json(plan: Plan, result: Result | None = None) -> dict[str, Any]:
    from kafetrain.deadletter import key_text

    effects = {} if result is None else {id(one.target): one.effect.value for one in result.changes}
    targets = plan.targets if result is None else tuple(one.target for one in result.changes)
    return {
        "action": plan.action.value,
        "topic": plan.topic,
        "command": None if result is None else result.command,
        "keys": [
            {
                "action": target.action.value,
                "key": key_text(target.key),
                "id": str(target.id),
                "records": [
                    {"partition": letter.partition, "offset": letter.offset, "id": str(letter.id)}
                    for letter in target.letters
                ],
                "effect": effects.get(id(target)),
            }
            for target in targets
        ],
        "nothing": list(plan.nothing),
    }
