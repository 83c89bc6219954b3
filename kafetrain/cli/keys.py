"""`kafetrain keys`: what to do with a key that is in retry, and not dead."""

from __future__ import annotations

import typer

from kafetrain.cli.key_changes import By, Change, Id, Key, NoWait, ReasonText, Timeout, Yes, change_keys, which
from kafetrain.cli.shared import AsJson, Brokers, Group, Topic, settings_for
from kafetrain.cli.wording import counted

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
    keys = which(key=key, id=id)
    change = Change(yes, no_wait, timeout, by, reason_text, as_json)
    change_keys(
        topic,
        settings_for(brokers, group),
        change,
        lambda letters: letters.plan_retry_now(**keys),
        lambda plan: f"Retries {counted(len(plan.targets), 'key')} of {topic} now.",
    )


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
    keys = which(key=key, id=id)
    change = Change(yes, no_wait, timeout, by, reason_text, as_json)
    change_keys(
        topic,
        settings_for(brokers, group),
        change,
        lambda letters: letters.plan_skip(**keys),
        lambda plan: f"Skips the first record of {counted(len(plan.targets), 'key')} of {topic}.",
    )
