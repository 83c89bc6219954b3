"""What operators' commands must be allowed to do: their tables suffice, and each line of them is needed."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from kafetrain import ConstantBackoff, KafkaConsumer, NotRetriableError, Record, RetriableError, Settings, cli
from kafetrain.service.adapters.kafka_destination import KafkaDestination
from kafetrain.service.ports.destination import Delivery, DeliveryError
from kafetrain.service.settings import ServiceSettings
from tests.integration.cluster import Cluster
from tests.integration.security.secured import SecuredBroker
from tests.integration.security.tables import Row, here, rows
from tests.waiting import wait_for

pytestmark = pytest.mark.kafka

USER, PASSWORD = "on-call", "battery-staple"


class World:
    """A topic with a dead key, a record that is parked behind it, and one that waits; the group is at rest."""

    def __init__(self, secured: SecuredBroker, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        self.secured, self.cluster = secured, cluster
        self.topic, self.group = f"orders-{uuid.uuid4().hex[:8]}", f"billing-{uuid.uuid4().hex[:8]}"
        secured.broker.create_topic(self.topic)
        cluster.write(self.topic, b"dead", b"dies", b"parked")
        cluster.write(self.topic, b"late", b"waits")
        variables = {**secured.as_user(USER, PASSWORD), "group_id": self.group}
        for name, value in variables.items():
            monkeypatch.setenv(f"KAFETRAIN_{name.upper()}", f"{value}")
        settings = Settings(
            bootstrap_servers=secured.broker.bootstrap_servers,
            security_protocol="PLAINTEXT",
            sasl_mechanism=None,
            sasl_username=None,
            sasl_password=None,
            group_id=self.group,
            backoff=ConstantBackoff(timedelta(hours=1)),
            _env_file=None,
        )
        with KafkaConsumer.resilient(settings, self.topic, _handle) as consumer:
            wait_for("one is dead, one parked, one waits", self._is_locked, timeout=120, check=consumer.check)

    def _is_locked(self) -> bool:
        states = [entry["state"] for entry in self.cluster.locks(f"redirect-{self.topic}").values()]
        return sorted(states) == ["dead", "pending"] and len(self.cluster.dead_places(f"dlq-{self.topic}")) == 2

    def recreate(self) -> None:
        self.secured.broker.delete_topic(self.topic)
        wait_for("the topic is gone", lambda: not self.cluster.exists(self.topic), timeout=60)
        self.secured.broker.create_topic(self.topic)

    def run(self, allowed: Sequence[Row], *arguments: str) -> Any:
        self.secured.allow(USER, [here(row.right, self.topic, self.group) for row in allowed])
        words = [word.format(topic=self.topic, group=self.group) for word in arguments]
        return CliRunner().invoke(cli.app, words, catch_exceptions=False)


def _handle(record: Record) -> None:
    if record.value == b"dies":
        raise NotRetriableError("as it is")
    raise RetriableError("not yet")


@pytest.fixture(scope="module")
def cluster(secured: SecuredBroker) -> Iterator[Cluster]:
    secured.add_user(USER, PASSWORD)
    cluster = Cluster(secured.broker)
    yield cluster
    cluster.close()


@pytest.fixture
def world(secured: SecuredBroker, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(secured, cluster, monkeypatch)


COMMANDS: dict[str, tuple[str, list[str]]] = {
    "locks": ("Commands that only look", ["locks {topic}"]),
    "dlq list, dlq show": ("Looking at dead letters", ["dlq list {topic}", "dlq show {topic} --at 0:0"]),
    "dlq replay": ("Changing keys", ["dlq replay {topic} --all --yes --no-wait"]),
    "topics reset": ("Resetting a topic", ["topics reset {topic} --dead-letter --yes"]),
    "topics forget": ("Forgetting a group", ["topics forget {group} --topic {topic} --yes"]),
}
SLOW = ("topics forget", "Write")
"""Its first two writes are refused together, and kafka-python's producer is given up after a while only."""


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_works_with_its_table_and_names_what_it_lacks(name: str, world: World) -> None:
    heading, commands = COMMANDS[name]
    table = rows(heading)
    if name == "topics reset":
        world.recreate()
    for row in table:
        if row.without_it == "warning" or (name, row.right.operation) == SLOW:
            continue
        for command in commands:
            done = world.run([other for other in table if other != row], *command.split())
            assert done.exit_code == 1, f"{command} without {row}: {done.output}"
            says_what_lacks(row, world, done.stderr)
    for command in commands:
        done = world.run(table, *command.split())
        assert done.exit_code == 0, f"{command}: {done.stderr}"


def says_what_lacks(row: Row, world: World, text: str) -> None:
    """In one line, without a stack trace. Without Read or Write, Describe has gone too."""
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in text
    assert PASSWORD not in text
    assert here(row.right, world.topic, world.group).name in errors[0]
    assert f"lacks {row.right.operation} there" in errors[0] or "lacks Describe there" in errors[0]


def test_the_other_commands_that_change_keys_work_with_the_same_table(world: World) -> None:
    for command in ("dlq release {topic} --all", "keys retry-now {topic} --key late", "keys skip {topic} --key late"):
        done = world.run(rows("Changing keys"), *command.split(), "--yes", "--no-wait")
        assert (done.exit_code, "is not known" in done.stderr) == (0, False), f"{command}: {done.stderr}"


def test_the_retry_service_delivers_with_its_table_and_names_what_it_lacks(world: World) -> None:
    host, port = world.secured.broker.addresses["SCRAM"].rsplit(":", 1)
    login = {f"kafka_{name}": value for name, value in world.secured.as_user(USER, PASSWORD).items()}
    del login["kafka_bootstrap_servers"]
    settings = ServiceSettings(_env_file=None, **{**login, "kafka_brokers": (f"{host}:{port}",)})
    task = Delivery({"host": host, "port": int(port), "topic": world.topic}, "task|1", "message", "shop")

    async def deliver() -> None:
        destination = KafkaDestination(settings)
        await destination.open()
        try:
            await destination.deliver(task)
        finally:
            await destination.close()

    table, before = rows("The retry service"), world.cluster.end_offsets(world.topic)
    world.secured.allow(USER, [])
    with pytest.raises(DeliveryError) as refused:
        asyncio.run(deliver())
    assert world.topic in str(refused.value)
    assert "lacks" in str(refused.value)
    world.secured.allow(USER, [here(row.right, world.topic, world.group) for row in table])
    asyncio.run(deliver())
    assert sum(world.cluster.end_offsets(world.topic).values()) == sum(before.values()) + 1
