"""A topic with records that fail as they say, and the command line of its operator.

A pytest plugin, for its fixture: `pytest_plugins = ["tests.integration.cluster", "tests.integration.stage"]`.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from kafetrain import KafkaConsumer, NotRetriableError, Record, RetriableError, Settings, cli
from tests.integration.journal import Journal
from tests.waiting import wait_for

if TYPE_CHECKING:
    from kafetrain.consumer.resilient import ResilientConsumer
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings


class Bank:
    """A handler that fails as it is told, until it is mended."""

    def __init__(self) -> None:
        self.mended = threading.Event()
        self.journal = Journal()
        self.handle = self.journal.recording(self._handle)

    def _handle(self, record: Record) -> None:
        if record.value.startswith(b"bad") and not self.mended.is_set():
            raise NotRetriableError(f"no account: {record.value.decode()}")
        if record.value.startswith(b"poison"):
            raise NotRetriableError("cannot be read")
        if record.value.startswith(b"later") and not self.mended.is_set():
            raise RetriableError("the bank is closed", delay=timedelta(hours=1))


class Stage:
    """A topic, its group, and the command line for both."""

    def __init__(self, cluster: Cluster, settings: Settings, topic: str) -> None:
        self.cluster, self.settings, self.topic = cluster, settings, topic
        self.bank = Bank()
        self.dlq = f"dlq-{topic}"

    @contextmanager
    def consuming(self) -> Iterator[ResilientConsumer]:
        with KafkaConsumer.resilient(self.settings, self.topic, self.bank.handle) as consumer:
            yield consumer

    def run(self, command: str, *arguments: str, code: int = 0) -> Any:
        """`kafetrain COMMAND TOPIC ARGUMENTS`; `code` is the exit code that it must have."""
        servers = ",".join(self.settings.bootstrap_servers)
        options = ["--brokers", servers, "--group", self.settings.group_id]
        result = CliRunner().invoke(cli.app, [*command.split(), self.topic, *arguments, *options])
        assert result.exit_code == code, (result.stdout, result.stderr)
        return result

    def letters(self, *arguments: str) -> list[dict[str, Any]]:
        return list(json.loads(self.run("dlq list", *arguments, "--json").stdout))

    def locks(self, *arguments: str) -> list[dict[str, Any]]:
        return list(json.loads(self.run("locks", *arguments, "--json").stdout))

    def until_dead(self, letters: int) -> None:
        """With a consumer, until so many dead letters are there and nothing is pending."""
        with self.consuming() as consumer:
            wait_for(
                f"{letters} dead letters",
                lambda: (
                    len(self.cluster.read(self.dlq)) == letters
                    and not any(lock.pending for lock in consumer.tracker.locks(self.topic))
                ),
                check=consumer.check,
            )


@pytest.fixture
def stage(
    cluster: Cluster,
    kafetrain_topic: TopicFactory,
    make_settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Stage:
    for name in [name for name in os.environ if name.upper().startswith("KAFETRAIN_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return Stage(cluster, make_settings(), kafetrain_topic(2, prefix="orders"))
