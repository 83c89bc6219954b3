"""`kafetrain doctor`: what can keep an app from working."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from kafetrain.cli.config import ConfigFile
from kafetrain.cli.errors import FAILED
from kafetrain.cli.shared import AsJson, Brokers, Group, load_configuration, print_json

__all__ = ["doctor"]

_MARKS = {"fine": "ok", "warning": "warning", "wrong": "WRONG"}


def doctor(
    topics: Annotated[
        list[str] | None, typer.Argument(help="Source topics; else those of the configuration.", show_default=False)
    ] = None,
    file: ConfigFile = None,
    brokers: Brokers = None,
    group: Group = None,
    as_json: AsJson = False,
) -> None:
    """Look at brokers, versions, topics, permissions and lag, and say what is wrong. Changes nothing.

    Exit code 1: something is wrong.
    """
    from kafetrain.app.doctor import WRONG, examine
    from kafetrain.client.by_kafka_python import by_kafka_python
    from kafetrain.client.kafka_python_cluster import ClusterClient

    configuration = load_configuration(file, bootstrap_servers=brokers, group_id=group)
    settings = configuration.settings
    findings = []
    cluster = ClusterClient(by_kafka_python(settings))
    for finding in examine(cluster, settings, topics or configuration.topics):
        findings.append(finding)
        if not as_json:
            typer.echo(f"{_MARKS[finding.level]:<8} {finding.about:<12} {finding.text}")
    if as_json:
        print_json([asdict(finding) for finding in findings])
    if any(finding.level == WRONG for finding in findings):
        raise typer.Exit(FAILED)
