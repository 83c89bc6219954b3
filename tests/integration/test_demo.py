"""`kafetrain demo` as a user runs it, on its own broker and on a Kafka; and `kafetrain locks` beside a consumer."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kafetrain import KafkaConsumer, NotRetriableError, Record
from tests.waiting import wait_for

if TYPE_CHECKING:
    from kafetrain.testing import Broker
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings

pytest_plugins = ["tests.integration.cluster"]

needs_mock = pytest.mark.skipif(
    importlib.util.find_spec("confluent_kafka") is None, reason="the embedded broker needs confluent-kafka"
)
QUICK = ("--plain", "--duration", "3", "--orders", "90")
TIMEOUT_S = 120


@pytest.fixture
def broker(kafetrain_broker: Broker) -> Broker:
    if not kafetrain_broker.is_real:
        pytest.skip("the demo treats an address as Kafka's, and this is a mock's")
    return kafetrain_broker


@pytest.fixture
def environment() -> dict[str, str]:
    """As good as empty."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUNBUFFERED": "1"}


def run(
    *arguments: str, cwd: Path, environment: dict[str, str], program: str | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    """`program`: Python code to run instead of the command."""
    start = ["-m", "kafetrain"] if program is None else ["-c", program]
    return subprocess.run(
        [sys.executable, *start, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**environment, **more},
        timeout=TIMEOUT_S,
    )


@contextmanager
def demo_until(
    phase: str, *arguments: str, cwd: Path, environment: dict[str, str]
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A demo that has come so far, and its topic where it is on a Kafka. It does not outlive the block."""
    command = [sys.executable, "-m", "kafetrain", "demo", "--plain", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            assert any(phase in line for line in process.stdout), "it ended early"
            yield process, first.split()[-1]
        finally:
            process.kill()


def check_good(result: subprocess.CompletedProcess[str]) -> None:
    assert result.stderr == ""
    assert result.returncode == 0, result.stdout
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines if line.startswith(("  kept", "  BROKEN"))] == ["kept"] * 3
    assert lines[-1] == "verdict: good"
    ended = re.search(r"every order ended +(\d+) succeeded, 2 dead-lettered, (\d+) parked, of 90", result.stdout)
    assert ended is not None
    assert sum(map(int, ended.groups())) == 88
    for part in ("failed in run 1 of 4", "runs again", "succeeded in run 3", "(exhausted)", "(not-retriable)"):
        assert part in result.stdout, part


@needs_mock
class TestEmbedded:
    def test_it_needs_nothing_and_its_verdict_is_good(self, tmp_path: Path, environment: dict[str, str]) -> None:
        result = run("demo", *QUICK, cwd=tmp_path, environment=environment)
        check_good(result)
        assert result.stdout.startswith("kafetrain demo on an embedded broker at 127.0.0.1:")

    def test_settings_for_another_broker_do_not_matter(self, tmp_path: Path, environment: dict[str, str]) -> None:
        result = run(
            "demo",
            *QUICK,
            cwd=tmp_path,
            environment=environment,
            KAFETRAIN_BOOTSTRAP_SERVERS="production:9092",
            KAFETRAIN_SECURITY_PROTOCOL="SASL_SSL",
            KAFETRAIN_SASL_MECHANISM="PLAIN",
            KAFETRAIN_RETRY_TOPIC_PARTITIONS="9",
            KAFETRAIN_MAX_RETRIES="0",
        )
        check_good(result)

    @pytest.mark.parametrize(
        ("sabotage", "promise"),
        [
            ("source_path.source_step = lambda *_: SourceStep.RUN", "no order was overtaken"),
            ("writes.Writes.retry_record = lambda *_: iter(())", "every order ended"),
        ],
        ids=["order", "loss"],
    )
    def test_a_broken_kafetrain_has_a_bad_verdict(
        self, sabotage: str, promise: str, tmp_path: Path, environment: dict[str, str]
    ) -> None:
        program = f"""
from kafetrain.cli import main
from kafetrain.cli.demo import play
from kafetrain.core.rules import SourceStep
from kafetrain.tracker import source_path, writes
{sabotage}
play.GIVE_UP_AFTER_S = 3.0
main()
"""
        result = run("demo", *QUICK, program=program, cwd=tmp_path, environment=environment)
        assert (result.returncode, result.stderr) == (1, "")
        assert f"  BROKEN  {promise}" in result.stdout
        assert result.stdout.splitlines()[-1] == "verdict: bad"

    def test_interrupted_it_ends_at_once(self, tmp_path: Path, environment: dict[str, str]) -> None:
        with demo_until("orders come in", cwd=tmp_path, environment=environment) as (process, _):
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=90)
        assert process.returncode == 130
        assert errors == "interrupted\n"


@pytest.mark.kafka
class TestKafka:
    def test_it_runs_on_a_kafka_and_leaves_no_topic_there(
        self, broker: Broker, cluster: Cluster, tmp_path: Path, environment: dict[str, str]
    ) -> None:
        result = run("demo", *QUICK, "--brokers", broker.bootstrap_servers, cwd=tmp_path, environment=environment)
        check_good(result)
        topic = result.stdout.splitlines()[0].split()[-1]
        assert topic.startswith("kafetrain-demo-")
        names = [topic, f"retry-{topic}", f"redirect-{topic}", f"dlq-{topic}"]
        wait_for("they are gone", lambda: not any(map(cluster.exists, names)))

    def test_interrupted_it_leaves_no_topic_either(
        self, broker: Broker, cluster: Cluster, tmp_path: Path, environment: dict[str, str]
    ) -> None:
        arguments = ("--brokers", broker.bootstrap_servers)
        with demo_until("orders come in", *arguments, cwd=tmp_path, environment=environment) as (process, topic):
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=90)
        assert process.returncode == 130
        assert errors == "interrupted\n"
        wait_for(f"{topic} is gone", lambda: not cluster.exists(topic))

    def test_a_kafka_that_does_not_answer_is_a_failure(self, tmp_path: Path, environment: dict[str, str]) -> None:
        result = run("demo", "--brokers", "127.0.0.1:1", cwd=tmp_path, environment=environment)
        assert result.returncode == 1
        assert result.stdout == ""
        assert "could not connect to Kafka at 127.0.0.1:1" in result.stderr
        assert "Traceback" not in result.stderr


@pytest.mark.kafka
def test_locks_shows_what_is_locked_while_others_consume(
    cluster: Cluster,
    kafetrain_topic: TopicFactory,
    make_settings: MakeSettings,
    tmp_path: Path,
    environment: dict[str, str],
) -> None:
    topic, settings = kafetrain_topic(2, prefix="orders"), make_settings()
    command = ("locks", topic, "--brokers", cluster.broker.bootstrap_servers, "--group", settings.group_id)

    def handle(record: Record) -> None:
        if record.value == b"bad":
            raise NotRetriableError("no such address")

    before = run(*command, "--json", cwd=tmp_path, environment=environment)
    assert (before.returncode, json.loads(before.stdout)) == (0, [])
    assert not cluster.exists(f"redirect-{topic}")

    cluster.write(topic, b"ada", b"good", b"bad", partition=1)
    cluster.write(topic, b"\xff", b"bad", partition=0)
    with KafkaConsumer.resilient(settings, topic, handle) as consumer:
        wait_for("both are dead", lambda: len(consumer.tracker.locks(topic)) == 2, check=consumer.check)
        during = run(*command, "--json", cwd=tmp_path, environment=environment)
    after = run(*command, cwd=tmp_path, environment=environment)

    assert (during.returncode, during.stderr) == (0, "")
    rows = json.loads(during.stdout)
    assert [(row["key"], row["partition"], row["state"], row["attempt"]) for row in rows] == [
        ("base64:/w==", 0, "dead", 1),
        ("ada", 1, "dead", 1),
    ]
    assert rows[1]["head"] == f"{settings.group_id}/{topic}/1/1"
    assert rows[1]["error_type"] == "NotRetriableError"
    assert (after.returncode, after.stderr) == (0, "")
    assert [line.split()[0] for line in after.stdout.splitlines()] == ["key", "base64:/w==", "ada"]
