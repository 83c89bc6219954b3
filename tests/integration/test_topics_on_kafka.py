"""Creating, growing and verifying topics on Apache Kafka, and the commands that errors print."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from typer.testing import CliRunner

from kafetrain import cli
from kafetrain.client.kafka_python import KafkaPythonClient
from kafetrain.client.ports import AdminPort, TopicSpec
from kafetrain.errors import ConfigurationError
from kafetrain.settings import Settings
from kafetrain.testing import Broker
from kafetrain.testing.apache_kafka import ApacheKafkaBroker
from kafetrain.testing.distribution import cache_folder, fetch_jars, find_java
from kafetrain.testing.pytest_plugin import TopicFactory
from kafetrain.topic_rules import commands_for
from kafetrain.topic_setup import prepare_topics, verify_topics
from kafetrain.topics import AuxiliaryTopics

pytestmark = pytest.mark.kafka


@pytest.fixture
def settings(kafetrain_broker: Broker) -> Settings:
    if not kafetrain_broker.is_real:
        pytest.skip("a mock creates no topics as asked, and tells no settings")
    return settings_for(kafetrain_broker)


def settings_for(broker: Broker, **values: Any) -> Settings:
    servers, options = broker.bootstrap_servers, broker.client_options
    return Settings(group_id="g", bootstrap_servers=servers, client_options=options, _env_file=None, **values)


@pytest.fixture
def admin(settings: Settings) -> Iterator[AdminPort]:
    admin = KafkaPythonClient(settings).admin()
    yield admin
    admin.close()


def test_topics_are_created_as_the_protocol_needs_them(
    settings: Settings, admin: AdminPort, kafetrain_topic: TopicFactory
) -> None:
    source = kafetrain_topic(4, {"max.message.bytes": "2000000"})
    ready = prepare_topics(admin, settings, source)
    names = ready.names
    assert ready.created == names.auxiliary
    assert ready.warnings == ()
    assert ready.topic_id
    described = admin.describe_topics([source, *names.auxiliary])
    assert {topic.partitions for topic in described.values()} == {4}
    assert described[source].topic_id == ready.topic_id
    configs = admin.topic_configs(names.auxiliary)
    for name in names.auxiliary:
        assert configs[name]["retention.ms"] == "-1"
        assert configs[name]["retention.bytes"] == "-1"
    for name in (names.retry, names.dlq):
        assert configs[name]["cleanup.policy"] == "delete"
        assert configs[name]["max.message.bytes"] == "2065536"
    redirect = configs[names.redirect]
    assert set(redirect["cleanup.policy"].split(",")) == {"compact", "delete"}
    assert redirect["segment.ms"] == "3600000"
    assert redirect["segment.bytes"] == "33554432"
    assert redirect["min.compaction.lag.ms"] == "600000"
    assert redirect["delete.retention.ms"] == "86400000"


def test_what_was_created_is_good_and_stays_as_it_is(
    settings: Settings, admin: AdminPort, kafetrain_topic: TopicFactory
) -> None:
    source = kafetrain_topic(2)
    first = prepare_topics(admin, settings, source)
    second = prepare_topics(admin, settings, source)
    assert second.created == ()
    assert second.topic_id == first.topic_id
    assert verify_topics(admin, settings, source) == []


def test_instances_that_start_at_the_same_moment_all_succeed(
    settings: Settings, admin: AdminPort, kafetrain_topic: TopicFactory
) -> None:
    source, count = kafetrain_topic(3), 4
    barrier = Barrier(count)

    def start() -> dict[str, int]:
        own = KafkaPythonClient(settings).admin()
        try:
            barrier.wait(30)
            return dict(prepare_topics(own, settings, source).partitions)
        finally:
            own.close()

    with ThreadPoolExecutor(count) as pool:
        results = [future.result(120) for future in [pool.submit(start) for _ in range(count)]]
    assert results == [dict.fromkeys(AuxiliaryTopics.of(settings, source).auxiliary, 3)] * count
    assert verify_topics(admin, settings, source) == []


def test_topics_grow_with_their_source(settings: Settings, admin: AdminPort, kafetrain_topic: TopicFactory) -> None:
    source = kafetrain_topic(2)
    prepare_topics(admin, settings, source)
    admin.grow_topic(source, 5)
    ready = prepare_topics(admin, settings, source)
    assert ready.partitions == dict.fromkeys(ready.names.auxiliary, 5)
    assert [ready.partition_for(p) for p in range(5)] == [0, 1, 2, 3, 4]


def test_a_source_topic_that_does_not_exist_is_not_created(settings: Settings, admin: AdminPort) -> None:
    with pytest.raises(ConfigurationError, match="no-such-topic does not exist"):
        prepare_topics(admin, settings, "no-such-topic")
    assert admin.describe_topics(["no-such-topic", "retry-no-such-topic"]) == {}


def test_an_explicit_count_is_kept(
    kafetrain_broker: Broker, settings: Settings, admin: AdminPort, kafetrain_topic: TopicFactory
) -> None:
    source = kafetrain_topic(4)
    fixed = settings_for(kafetrain_broker, retry_topic_partitions=2)
    ready = prepare_topics(admin, fixed, source)
    assert ready.partitions == dict.fromkeys(ready.names.auxiliary, 2)
    changed = settings_for(kafetrain_broker, retry_topic_partitions=3)
    with pytest.raises(ConfigurationError, match="partitions is 2 and must be 3: the count never changes"):
        prepare_topics(admin, changed, source)


def test_the_command_line_creates_and_verifies(
    kafetrain_broker: Broker, settings: Settings, kafetrain_topic: TopicFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = kafetrain_topic(2)
    monkeypatch.setenv("KAFETRAIN_CLIENT_OPTIONS", json.dumps(kafetrain_broker.client_options))
    brokers = ["--brokers", kafetrain_broker.bootstrap_servers, "--json"]
    verified = CliRunner().invoke(cli.app, ["topics", "verify", source, *brokers])
    assert verified.exit_code == 1
    assert [problem["value"] for problem in json.loads(verified.stdout)["problems"]] == ["does not exist"] * 3
    created = CliRunner().invoke(cli.app, ["topics", "create", source, *brokers])
    assert created.exit_code == 0, created.output
    assert all(row["created"] for row in json.loads(created.stdout)["auxiliary"])
    again = CliRunner().invoke(cli.app, ["topics", "verify", source, *brokers])
    assert (again.exit_code, json.loads(again.stdout)["ok"]) == (0, True)


def test_a_broker_that_does_not_answer_is_a_message_and_no_stack_trace(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kafetrain", "topics", "verify", "orders", "--brokers", "localhost:1"]
    root = Path(__file__).parents[2]
    environment = {"PYTHONPATH": str(root), "KAFETRAIN_CLIENT_OPTIONS": '{"bootstrap_timeout_ms": 500}'}
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment, timeout=60
    )
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert "localhost:1" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_printed_settings_commands_put_it_right(
    kafetrain_broker: Broker, settings: Settings, admin: AdminPort, kafetrain_topic: TopicFactory
) -> None:
    """Run as they are printed, except for the script, which is not among the jars that the broker runs from."""
    if not isinstance(kafetrain_broker, ApacheKafkaBroker):
        pytest.skip("needs Kafka's own tools, which come with the jars")
    source = kafetrain_topic(3)
    names = AuxiliaryTopics.of(settings, source)
    admin.create_topics([TopicSpec(name, 3) for name in names.auxiliary])
    with pytest.raises(ConfigurationError) as caught:
        prepare_topics(admin, settings, source)
    printed = [line.strip() for line in str(caught.value).splitlines() if line.startswith("  kafka-")]
    assert len(printed) == 3
    # Warnings count too here: with them, nothing is left to say.
    for command in commands_for(verify_topics(admin, settings, source), settings):
        script, *arguments = shlex.split(command)
        assert script == "kafka-configs.sh"
        libs = fetch_jars(cache_folder(os.environ))
        java = [find_java(os.environ), "-cp", f"{libs}/*", "kafka.admin.ConfigCommand"]
        result = subprocess.run([*java, *arguments], capture_output=True, text=True, check=False, timeout=120)
        assert result.returncode == 0, result.stdout + result.stderr
    assert prepare_topics(admin, settings, source).warnings == ()
