"""`kafetrain keys`: what to do with a key that is in retry, and not dead."""

from __future__ import annotations

import typer

from kafetrain.cli.changes import connect, counted
from kafetrain.cli.key_changes import By, Change, Id, Key, NoWait, ReasonText, Timeout, Yes, carry_out, which
from kafetrain.cli.shared import AsJson, Brokers, Group, Topic, settings_for

__all__ = ["app"]

app = typer.Typer(help="Keys in retry: run them now, or skip what blocks them.", no_args_is_help=True)


@app.command("retry-now")
def retry_now(
    topic: Topic,
    key: Key = None,
    id: Id = None,
    yes: Yes = False,
    no_wait: NoWait = False,
    timeout: Timeout = "60s",
    by: By = None,
    reason_text: ReasonText = None,
    brokers: Brokers = None,
    group: Group = None,
    as_json: AsJson = False,
) -> None:
    """Make a key due now that waits for its next try.

    Its attempts and its order stay as they are. Done again, it changes nothing.
    """
    from kafetrain.deadletter import DeadLetters

    keys = which(key=key, id=id)
    settings = settings_for(brokers, group)
    with DeadLetters(settings, topic, connect(settings)) as letters:
        plan = letters.plan_retry_now(**keys)
        change = Change(yes, no_wait, timeout, by, reason_text, as_json)
        carry_out(letters, plan, change, f"Retries {counted(len(plan.targets), 'key')} of {topic} now.")


@app.command()
def skip(
    topic: Topic,
    key: Key = None,
    id: Id = None,
    yes: Yes = False,
    no_wait: NoWait = False,
    timeout: Timeout = "60s",
    by: By = None,
    reason_text: ReasonText = None,
    brokers: Brokers = None,
    group: Group = None,
    as_json: AsJson = False,
) -> None:
    """Put the first record of a key aside, and let the next one run.

    It goes to the dead-letter topic as `skipped`. Done again, it skips the next one: the plan says which.
    """
    from kafetrain.deadletter import DeadLetters

    keys = which(key=key, id=id)
    settings = settings_for(brokers, group)
    with DeadLetters(settings, topic, connect(settings)) as letters:
        plan = letters.plan_skip(**keys)
        change = Change(yes, no_wait, timeout, by, reason_text, as_json)
        carry_out(letters, plan, change, f"Skips the first record of {counted(len(plan.targets), 'key')} of {topic}.")
