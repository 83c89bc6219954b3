"""`kafetrain doctor` on a real broker, and on none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kafetrain import KafkaConsumer
from tests.integration.journal import Journal
from tests.waiting import wait_for

if TYPE_CHECKING:
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]


def doctor(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kafetrain", "doctor", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env=environment, timeout=120
    )


def test_it_finds_nothing_wrong_with_what_works_and_tells_the_lag(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings, tmp_path: Path
) -> None:
    topic, settings, journal = kafetrain_topic(2, prefix="orders"), make_settings(), Journal()
    where = ["--brokers", ",".join(settings.bootstrap_servers), "--group", settings.group_id]
    new = doctor(tmp_path, topic, *where)
    assert new.returncode == 0, new.stdout + new.stderr
    assert f"retry-{topic}, redirect-{topic}, dlq-{topic} will be created" in new.stdout

    cluster.write(topic, b"a", b"m0", b"m1")
    with KafkaConsumer.resilient(settings, topic, journal.recording(lambda record: None)) as consumer:
        wait_for("both have ended", lambda: len(journal.offsets("ended")) == 2, check=consumer.check)
    cluster.write(topic, b"a", b"m2")
    shown = doctor(tmp_path, topic, *where, "--json")
    findings = json.loads(shown.stdout)
    assert (shown.returncode, [finding for finding in findings if finding["level"] == "wrong"]) == (0, []), shown.stdout
    texts = [finding["text"] for finding in findings]
    assert f"group {settings.group_id} is 1 record behind in {topic}, 1 of them in partition 0" in texts
    assert f"{topic} has 2 partitions" in texts
    assert any(text.startswith("1 broker, controller 1, protocol of Kafka ") for text in texts)

    options = json.dumps({"client.id": "us", "ssl.endpoint.identification.algorithm": "none"})
    other = doctor(tmp_path, topic, *where, "--json", KAFETRAIN_CLIENT="confluent", KAFETRAIN_CLIENT_OPTIONS=options)
    assert [finding for finding in json.loads(other.stdout) if finding["about"] != "versions"] == [
        finding for finding in findings if finding["about"] != "versions"
    ], "the same of an app whose client is confluent, though kafka-python asks"

    cluster.configure(f"redirect-{topic}", {"cleanup.policy": "delete"})
    wrong = doctor(tmp_path, topic, *where)
    assert wrong.returncode == 1
    assert f"redirect-{topic}: cleanup.policy is delete" in wrong.stdout


def test_without_a_broker_it_says_so_and_fails(tmp_path: Path) -> None:
    told = doctor(tmp_path, "orders", "--brokers", "127.0.0.1:1", "--group", "g")
    assert told.returncode == 1
    assert "127.0.0.1:1: Connection refused" in told.stdout
    assert "no broker can be reached" in told.stdout
    assert told.stderr == ""
