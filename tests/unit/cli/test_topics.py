"""`kafetrain topics`, and what a user sees of an error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from kafetrain import cli
from kafetrain.cli import shared, topics
from kafetrain.client.ports import ClientError
from kafetrain.settings import Settings
from tests.unit.fakes import FakeAdmin
from tests.unit.topic_setup.clusters import AUXILIARY, good_cluster

Run = Callable[..., Any]


def runner() -> CliRunner:
    build: Callable[..., CliRunner] = CliRunner
    try:
        return build(mix_stderr=False)  # older ones mix unless told not to
    except TypeError:
        return build()


@pytest.fixture
def cluster() -> FakeAdmin:
    return good_cluster()


@pytest.fixture
def seen() -> list[Settings]:
    """The settings that commands connected with."""
    return []


@pytest.fixture
def run(cluster: FakeAdmin, seen: list[Settings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs the command line on `cluster`, in an empty directory and environment."""
    for name in [name for name in os.environ if name.upper().startswith("KAFETRAIN_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def admin(settings: Settings) -> FakeAdmin:
        seen.append(settings)
        return cluster

    monkeypatch.setattr(shared, "connect_admin", admin)

    def invoke(*arguments: str, **environment: str) -> Any:
        return runner().invoke(cli.app, arguments, env={f"KAFETRAIN_{key}": text for key, text in environment.items()})

    return invoke


class TestCreate:
    def test_it_creates_what_is_missing_and_lists_all(self, run: Run, cluster: FakeAdmin) -> None:
        del cluster.topics["dlq-orders"]
        result = run("topics", "create", "orders")
        assert result.exit_code == 0
        assert result.stdout.splitlines() == [
            "retry     retry-orders  3 partitions  exists",
            "redirect  redirect-orders  3 partitions  exists",
            "dlq       dlq-orders  3 partitions  created",
        ]
        assert result.stderr == ""
        assert "dlq-orders" in cluster.topics
        assert cluster.closed

    def test_it_creates_even_where_applications_must_not(self, run: Run, cluster: FakeAdmin) -> None:
        del cluster.topics["dlq-orders"]
        assert run("topics", "create", "orders", AUTO_CREATE_TOPICS="false").exit_code == 0
        assert "dlq-orders" in cluster.topics

    def test_json_goes_to_stdout_and_warnings_to_stderr(self, run: Run, cluster: FakeAdmin) -> None:
        cluster.configs["retry-orders"]["max.message.bytes"] = "1"
        result = run("topics", "create", "orders", "--json")
        data = json.loads(result.stdout)
        assert data["topic"] == "orders"
        assert data["auxiliary"][0] == {"role": "retry", "name": "retry-orders", "partitions": 3, "created": False}
        assert [row["name"] for row in data["auxiliary"]] == AUXILIARY
        assert len(data["warnings"]) == 1
        assert result.stderr == f"warning: {data['warnings'][0]}\n"

    def test_a_missing_source_topic_is_wrong_usage(self, run: Run, cluster: FakeAdmin) -> None:
        result = run("topics", "create", "invoices", "--brokers", "other:9092")
        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr.startswith("error: invoices does not exist: the cluster at other:9092 does not have it")
        assert cluster.closed


class TestVerify:
    def test_good_topics_are_fine(self, run: Run) -> None:
        result = run("topics", "verify", "orders")
        assert result.exit_code == 0
        assert result.stdout == "orders: all topics are as they should be\n"

    def test_a_warning_is_shown_and_fine(self, run: Run, cluster: FakeAdmin) -> None:
        cluster.configs["redirect-orders"]["min.compaction.lag.ms"] = "0"
        result = run("topics", "verify", "orders")
        assert result.exit_code == 0
        assert result.stdout.startswith("warning: redirect-orders: min.compaction.lag.ms is 0 and should be 600000")

    def test_an_error_is_shown_with_the_command_and_fails(self, run: Run, cluster: FakeAdmin) -> None:
        cluster.configs["dlq-orders"]["retention.ms"] = "1000"
        result = run("topics", "verify", "orders", "--brokers", "a:9092")
        assert result.exit_code == 1
        first, second, third = result.stdout.splitlines()
        assert first.startswith("error: dlq-orders: retention.ms is 1000 and must be -1")
        assert second == "put it right with:"
        assert third.startswith("  kafka-configs.sh --bootstrap-server a:9092 --alter")

    def test_it_changes_nothing(self, run: Run, cluster: FakeAdmin) -> None:
        del cluster.topics["dlq-orders"]
        assert run("topics", "verify", "orders").exit_code == 1
        assert (cluster.created, cluster.grown) == ([], [])

    def test_json_has_problems_and_commands(self, run: Run, cluster: FakeAdmin) -> None:
        cluster.configs["dlq-orders"]["retention.ms"] = "1000"
        result = run("topics", "verify", "orders", "--json")
        data = json.loads(result.stdout)
        assert result.exit_code == 1
        assert data["ok"] is False
        assert [(p["topic"], p["setting"], p["level"]) for p in data["problems"]] == [
            ("dlq-orders", "retention.ms", "error")
        ]
        assert len(data["commands"]) == 1
        assert json.loads(run("topics", "verify", "orders", "--json").stdout) == data


class TestSettings:
    def test_options_are_on_top_of_the_environment(self, run: Run, seen: list[Settings]) -> None:
        run("topics", "verify", "orders", "--group", "mine", BOOTSTRAP_SERVERS="env:9092", GROUP_ID="theirs")
        (settings,) = seen
        assert (settings.group_id, settings.bootstrap_servers) == ("mine", ["env:9092"])

    def test_an_env_file_counts(self, run: Run, seen: list[Settings], tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("KAFETRAIN_BOOTSTRAP_SERVERS=file:9092\n")
        run("topics", "verify", "orders")
        assert seen[0].bootstrap_servers == ["file:9092"]

    def test_a_group_is_needed_only_where_it_is_in_the_names(self, run: Run) -> None:
        result = run("topics", "verify", "orders", TOPIC_FORMAT="{prefix}-{group}-{topic}")
        assert result.exit_code == 2
        assert "pass --group, or set KAFETRAIN_GROUP_ID" in result.stderr
        with_group = run("topics", "verify", "orders", "--group", "g", TOPIC_FORMAT="{prefix}-{group}-{topic}")
        assert "retry-g-orders does not exist" in with_group.stdout

    def test_a_command_that_needs_a_group_says_so(self, run: Run) -> None:
        from kafetrain.errors import ConfigurationError

        with pytest.raises(ConfigurationError, match="group_id is missing"):
            shared.settings_for("a:9092")

    def test_the_file_of_the_app_here_is_read_and_options_go_before_it(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("kafetrain.yaml").write_text(
            "kafka: {brokers: 'file:1', group: g, topic_format: '{prefix}-{group}-{topic}'}"
        )
        assert "retry-g-orders does not exist" in run("topics", "verify", "orders").stdout
        assert "retry-h-orders does not exist" in run("topics", "verify", "orders", "--group", "h").stdout
        Path("kafetrain.yaml").write_text("kafka: {borkers: 'file:1'}")
        broken = run("topics", "verify", "orders")
        assert (broken.exit_code, broken.stdout) == (2, "")
        assert broken.stderr == "error: kafetrain.yaml: kafka.borkers is unknown; did you mean brokers?\n"

    def test_a_wrong_setting_is_wrong_usage(self, run: Run) -> None:
        result = run("topics", "verify", "orders", "--brokers", "localhost", CONCURRENCY="0")
        assert result.exit_code == 2
        assert result.stdout == ""
        assert "'localhost' has no port" in result.stderr
        assert "concurrency = '0'; it may be" in result.stderr
        assert "(concurrency is from KAFETRAIN_CONCURRENCY)" in result.stderr

    def test_an_unknown_variable_is_warned_about(self, run: Run) -> None:
        result = run("topics", "verify", "orders", CONCURENCY="3")
        assert result.exit_code == 0
        assert result.stderr.startswith("warning: KAFETRAIN_CONCURENCY in the environment is no setting")


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "code", "text"),
        [
            (ClientError("no broker answers at broker:9092"), 1, "error: no broker answers at broker:9092\n"),
            (KeyboardInterrupt(), 130, "interrupted\n"),
            (ZeroDivisionError("a bug"), 1, "error: unexpected ZeroDivisionError: a bug\nThis should not happen"),
        ],
    )
    def test_an_error_is_a_message_and_a_code_and_no_stack_trace(
        self, run: Run, cluster: FakeAdmin, error: BaseException, code: int, text: str
    ) -> None:
        def fail() -> None:
            raise error

        cluster.before["describe_topics"] = fail
        result = run("topics", "verify", "orders")
        assert result.exit_code == code
        assert result.stdout == ""
        assert result.stderr.startswith(text)
        assert "Traceback" not in result.stderr
        assert cluster.closed

    def test_a_stack_trace_is_shown_when_asked_for(self, run: Run, cluster: FakeAdmin) -> None:
        def fail() -> None:
            raise ZeroDivisionError("a bug")

        cluster.before["describe_topics"] = fail
        result = run("--traceback", "topics", "verify", "orders")
        assert result.exit_code == 1
        assert result.stderr.startswith("Traceback (most recent call last)")
        assert 'raise ZeroDivisionError("a bug")' in result.stderr

    @pytest.mark.parametrize(
        "arguments", [["topics", "verify"], ["topics", "nonsense"], ["topics", "verify", "x", "--no"]]
    )
    def test_wrong_usage_has_code_2(self, run: Run, arguments: list[str]) -> None:
        result = run(*arguments)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert "Usage: " in result.stderr

    def test_a_reader_that_goes_away_is_no_error_to_report(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def gone(*args: object, **options: object) -> None:
            raise BrokenPipeError(32, "Broken pipe")

        monkeypatch.setattr(topics, "print_json", gone)
        result = run("topics", "verify", "orders", "--json")
        assert "error:" not in result.stderr


def test_the_version_is_printed_on_stdout(run: Run) -> None:
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout.strip()


class TestProcess:
    """The real process, since what a shell sees is the promise."""

    def call(self, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        root = str(Path(__file__).parents[3])
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": root, **environment}
        command = [sys.executable, "-m", "kafetrain", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=env, timeout=120)

    def test_help_is_printed_without_settings_and_without_a_cluster(self, tmp_path: Path) -> None:
        result = self.call("--help", cwd=tmp_path, KAFETRAIN_CONCURRENCY="nonsense")
        assert result.returncode == 0
        assert "topics" in result.stdout
        assert result.stderr == ""

    def test_wrong_settings_end_the_process_with_2(self, tmp_path: Path) -> None:
        result = self.call("topics", "verify", "orders", "--brokers", "nowhere", cwd=tmp_path)
        assert result.returncode == 2
        assert result.stdout == ""
        assert result.stderr.startswith("error: bootstrap_servers = 'nowhere'")
