"""`kafetrain inspect` beside a group at work: the figures, live and once."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from datetime import timedelta
from fcntl import ioctl
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kafetrain import KafkaConsumer, NotRetriableError, Record, RetriableError, Settings
from kafetrain.client.kafka_python import KafkaPythonClient
from kafetrain.operations.inspector import Inspector
from tests.waiting import wait_for

if TYPE_CHECKING:
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka

TIMEOUT_S = 60


def handle(record: Record) -> None:
    if record.value == b"later":
        raise RetriableError("the dependency is down", delay=timedelta(hours=1))
    if record.value == b"never":
        raise NotRetriableError("broken")


def command(cluster: Cluster, settings: Settings, topic: str, *options: str) -> list[str]:
    where = ["--brokers", cluster.broker.bootstrap_servers, "--group", settings.group_id]
    return [sys.executable, "-m", "kafetrain", "inspect", topic, *where, *options]


@pytest.fixture
def environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm"}


def test_the_figures_of_a_group_at_work_follow_what_it_does(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    topic, settings = kafetrain_topic(2, prefix="orders"), make_settings(max_retries=0)
    settings = settings.model_copy(update={"max_retries": 3})
    cluster.write(topic, b"fine", b"m")
    with Inspector(KafkaPythonClient(settings), settings, topic) as inspector:
        before = inspector.look()
        assert (before.members, before.retry_members) == (0, 0)
        assert [row.source and (row.source.end, row.source.committed, row.source.lag) for row in before.partitions] == [
            (1, None, 1),
            (0, None, 0),
        ]
        assert not cluster.exists(f"redirect-{topic}"), "looking creates nothing"

        with KafkaConsumer.resilient(settings, topic, handle) as consumer:
            cluster.write(topic, b"a", b"later", b"behind", b"behind")
            cluster.write(topic, b"b", b"never", partition=1)

            def has_settled() -> bool:
                first, second = inspector.look().partitions
                lags = [row.source.lag for row in (first, second) if row.source is not None]
                return (first.pending_records, second.dead_keys, lags) == (3, 1, [0, 0])

            wait_for("both keys are seen, and all is committed", has_settled, check=consumer.check)
            seen = inspector.look()
            assert (seen.members, seen.retry_members) == (1, 1)
            first, second = seen.partitions
            assert (first.pending_keys, first.pending_records, first.dead_keys) == (1, 3, 0)
            assert (second.pending_keys, second.pending_records, second.dead_keys) == (0, 0, 1)
            assert first.retry is not None
            assert first.retry.lag == 3, "its records wait in the retry topic"
            assert first.next_due is not None
            assert timedelta(minutes=59) < first.next_due - seen.at <= timedelta(hours=1)
            assert first.oldest_failure is not None
            assert [lock.key for lock in seen.dead] == [b"b"]
            assert seen.due == ()
        after = inspector.look()
        assert (after.members, after.retry_members) == (0, 0)
        assert after.partitions[0].pending_records == 3


def test_once_prints_a_table_or_json(
    cluster: Cluster,
    kafetrain_topic: TopicFactory,
    make_settings: MakeSettings,
    tmp_path: Path,
    environment: dict[str, str],
) -> None:
    topic, settings = kafetrain_topic(2, prefix="orders"), make_settings()
    cluster.write(topic, b"b", b"never", partition=1)
    with KafkaConsumer.resilient(settings, topic, handle) as consumer:
        wait_for("it is dead", lambda: cluster.locks(f"redirect-{topic}"), check=consumer.check)

    def run(*options: str) -> str:
        done = subprocess.run(
            command(cluster, settings, topic, *options),
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=environment,
            timeout=TIMEOUT_S,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    table = run("--once")
    assert re.search(r"^ *1 +1 +1 +0 .* 1 *$", table, re.MULTILINE), table
    assert re.search(r"^b +1 +0 +1 .*NotRetriableError: broken *$", table, re.MULTILINE), table
    data = json.loads(run("--json"))
    assert (data["members"], data["total"]["dead_keys"], data["total"]["lag"]) == (0, 1, 0)
    assert [lock["key"] for lock in data["dead"]] == ["b"]
    assert data["partitions"][1]["committed"] == 1


def test_a_topic_that_does_not_exist_is_one_sentence(
    cluster: Cluster, make_settings: MakeSettings, tmp_path: Path, environment: dict[str, str]
) -> None:
    done = subprocess.run(
        command(cluster, make_settings(), "nobody-made-this"),
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: nobody-made-this does not exist")
    assert len(done.stderr.splitlines()) == 1


def test_on_a_terminal_it_follows_the_group_until_it_is_interrupted(
    cluster: Cluster,
    kafetrain_topic: TopicFactory,
    make_settings: MakeSettings,
    tmp_path: Path,
    environment: dict[str, str],
) -> None:
    topic, settings = kafetrain_topic(2, prefix="orders"), make_settings()
    cluster.write(topic, b"fine", b"m")
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 140, 0, 0))
    process = subprocess.Popen(
        command(cluster, settings, topic, "--interval", "200ms"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=tmp_path,
        env=environment,
    )
    os.close(theirs)
    shown = ""

    def shows(pattern: str) -> bool:
        nonlocal shown
        while select.select([ours], [], [], 0)[0]:
            try:
                shown += os.read(ours, 65536).decode()
            except OSError:  # it has ended
                break
        return re.search(pattern, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)) is not None

    try:
        wait_for("the group is shown", lambda: shows("0 members; retries: 0 members"))
        with KafkaConsumer.resilient(settings, topic, handle) as consumer:
            wait_for("its members are seen", lambda: shows("1 member; retries: 1 member"), check=consumer.check)
            cluster.write(topic, b"b", b"never", partition=1)
            wait_for("so is its dead key", lambda: shows("NotRetriableError: broken"), check=consumer.check)
        process.send_signal(signal.SIGINT)
        wait_for("it has ended", lambda: shows("^$") or process.poll() is not None)
        assert process.returncode == 0, shown[-2000:]
        assert "Traceback" not in shown
    finally:
        process.kill()
        process.wait()
        os.close(ours)
