"""The tables of docs/pages/security.md, on a broker that allows nothing else: they suffice, and all of it is needed."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from kafka import KafkaConsumer as TheirConsumer

from kafetrain import (
    ConstantBackoff,
    ErrorTracker,
    KafetrainError,
    KafkaConsumer,
    NotRetriableError,
    Outcome,
    Record,
    Settings,
    get_retry_attempt,
)
from kafetrain.client.ports import ClientError
from kafetrain.errors import WriteFailedError
from tests.integration.cluster import Cluster
from tests.integration.security.secured import Right, SecuredBroker
from tests.integration.security.tables import Row, here, rows
from tests.waiting import wait_for

pytestmark = pytest.mark.kafka

USER, PASSWORD = "operator", "correct-horse"
NO_RETRIES, LAYER_1, ALL_LAYERS = rows("Layer 3 without retries"), rows("Layer 1"), rows("All layers")
CREATING, LOOKING = rows("Creating topics"), rows("Commands that only look")
(TRANSACTIONS,) = rows("Transactional delivery")


class Setup:
    """A topic with records that call for every kind of write, and a user who may do what a table says."""

    def __init__(self, secured: SecuredBroker, cluster: Cluster) -> None:
        self.secured, self.cluster = secured, cluster
        self.topic, self.group = f"orders-{uuid.uuid4().hex[:8]}", f"billing-{uuid.uuid4().hex[:8]}"
        secured.broker.create_topic(self.topic)
        cluster.write(self.topic, b"a", b"fails", b"follows")
        cluster.write(self.topic, b"b", b"dies")
        self.succeeded: list[bytes] = []
        self.died: list[bytes] = []

    def create_topics(self) -> None:
        """As an operator does."""
        servers = self.secured.broker.bootstrap_servers
        with ErrorTracker(Settings(bootstrap_servers=servers, group_id=self.group, _env_file=None)) as tracker:
            tracker.start_tracking(self.topic)

    def here(self, right: Right) -> Right:
        """What the page says of `orders` and `billing`, of our topic and group."""
        return here(right, self.topic, self.group)

    def allow(self, rows: Sequence[Row]) -> None:
        self.secured.allow(USER, [self.here(row.right) for row in rows])

    def settings(self, **changes: Any) -> Settings:
        values: dict[str, Any] = {
            "group_id": self.group,
            "auto_create_topics": False,
            "backoff": ConstantBackoff(timedelta(milliseconds=10)),
            "shutdown_timeout": timedelta(seconds=1),
            **self.secured.as_user(USER, PASSWORD),
            **changes,
        }
        return Settings(_env_file=None, **values)

    def handle(self, record: Record) -> None:
        if record.value == b"dies":
            self.died.append(record.value)
            raise NotRetriableError("as it is")
        if record.value == b"fails" and get_retry_attempt(record) == 0:
            raise ValueError("not yet")
        self.succeeded.append(record.value)

    @property
    def is_through(self) -> bool:
        return self.succeeded == [b"fails", b"follows"] and len(self.cluster.read(f"dlq-{self.topic}")) == 1

    # Ways to use kafetrain

    def run_all_layers(self, **changes: Any) -> None:
        with KafkaConsumer.resilient(self.settings(**changes), self.topic, self.handle) as consumer:
            wait_for("all is through", lambda: self.is_through, timeout=120, check=consumer.check)

    def run_layer_1(self) -> None:
        with ErrorTracker(self.settings()) as tracker:
            tracker.start_tracking(self.topic)
            options = {
                "bootstrap_servers": self.secured.broker.addresses["SCRAM"],
                "security_protocol": "SASL_PLAINTEXT",
                "sasl_mechanism": "SCRAM-SHA-512",
                "sasl_plain_username": USER,
                "sasl_plain_password": PASSWORD,
                "auto_offset_reset": "earliest",
                "enable_auto_commit": False,
            }
            source = TheirConsumer(self.topic, group_id=self.group, **options)
            retry = TheirConsumer(tracker.get_retry_topic(self.topic), group_id=tracker.get_retry_group(), **options)

            def pass_once() -> bool:
                for consumer in (source, retry):
                    for records in consumer.poll(timeout_ms=1_000).values():
                        for record in records:
                            while tracker.process(record, self.handle) is Outcome.NOT_DUE:
                                pass
                            consumer.commit(tracker.offsets(record))
                return self.is_through

            try:
                wait_for("all is through", pass_once, timeout=120)
            finally:
                source.close(autocommit=False)
                retry.close(autocommit=False)

    def run_without_retries(self) -> None:
        seen: list[bytes] = []
        consumer = KafkaConsumer(self.settings())

        def handle(record: Record) -> None:
            seen.append(record.value)
            if len(seen) == 3:
                consumer.stop()

        consumer.consume(self.topic, handle)
        assert self.cluster.committed(self.group, self.topic)[0][0] == 3


@pytest.fixture(scope="module")
def cluster(secured: SecuredBroker) -> Iterator[Cluster]:
    secured.add_user(USER, PASSWORD)
    cluster = Cluster(secured.broker)
    yield cluster
    cluster.close()


@pytest.fixture
def setup(secured: SecuredBroker, cluster: Cluster) -> Setup:
    return Setup(secured, cluster)


# The tables suffice


def test_all_layers_work_with_their_table_and_warn_of_nothing(setup: Setup, log: list[str]) -> None:
    setup.create_topics()
    setup.allow(ALL_LAYERS)
    setup.run_all_layers()
    assert [message for message in log if "dead-lettered" not in message] == []


def test_transactional_delivery_works_with_one_row_more_and_warns_of_nothing(setup: Setup, log: list[str]) -> None:
    setup.create_topics()
    setup.allow([*ALL_LAYERS, TRANSACTIONS])
    setup.run_all_layers(delivery="transactional")
    assert [message for message in log if "dead-lettered" not in message] == []


def test_transactional_delivery_needs_the_same_with_the_confluent_client(setup: Setup, log: list[str]) -> None:
    setup.create_topics()
    setup.allow([*ALL_LAYERS, TRANSACTIONS])
    setup.run_all_layers(delivery="transactional", client="confluent")
    assert [message for message in log if "dead-lettered" not in message] == []


def test_layer_1_works_with_its_table_and_warns_of_nothing(setup: Setup, log: list[str]) -> None:
    setup.create_topics()
    setup.allow(LAYER_1)
    setup.run_layer_1()
    assert [message for message in log if "dead-lettered" not in message] == []


def test_layer_3_works_without_retries_with_its_table(setup: Setup) -> None:
    setup.allow(NO_RETRIES)
    setup.run_without_retries()


def test_topics_are_created_and_grown_with_the_table_for_that(setup: Setup, log: list[str]) -> None:
    setup.allow([*ALL_LAYERS, *CREATING])
    setup.run_all_layers(auto_create_topics=True)
    setup.secured.grow(setup.topic, 2)
    with ErrorTracker(setup.settings(auto_create_topics=True)) as tracker:
        tracker.start_tracking(setup.topic)
    assert setup.cluster.partition_count(f"redirect-{setup.topic}") == 2
    assert [message for message in log if "dead-lettered" not in message] == []


@pytest.mark.parametrize("command", [["locks"], ["topics", "verify"]], ids=" ".join)
def test_commands_that_only_look_work_with_their_table(command: list[str], setup: Setup) -> None:
    setup.create_topics()
    setup.allow(LOOKING)
    variables = {
        f"KAFETRAIN_{name.upper()}": f"{value}" for name, value in setup.secured.as_user(USER, PASSWORD).items()
    }
    done = subprocess.run(
        [sys.executable, "-m", "kafetrain", *command, setup.topic, "--group", setup.group],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, "not verified" in done.stderr) == (0, False), done.stderr


# Nothing in them is idle


def error_without(right: Right, setup: Setup, run: Any) -> str:
    """The error's text, which names the resource and the right, or Describe, which has gone with it."""
    with pytest.raises((KafetrainError, ClientError)) as caught:
        run()
    text = str(caught.value)
    assert PASSWORD not in text
    assert setup.here(right).name in text
    assert f"lacks {right.operation} there" in text or "lacks Describe there (Read or Write would" in text
    return text


@pytest.mark.parametrize("row", [row for row in ALL_LAYERS if row.without_it == "error"], ids=str)
def test_all_layers_without_one_right_end_with_an_error_that_names_it(row: Row, setup: Setup) -> None:
    setup.create_topics()
    setup.allow([other for other in ALL_LAYERS if other != row])
    error_without(row.right, setup, setup.run_all_layers)


def test_transactional_delivery_without_its_row_ends_with_an_error_that_names_it(setup: Setup) -> None:
    setup.create_topics()
    setup.allow(ALL_LAYERS)
    error_without(TRANSACTIONS.right, setup, lambda: setup.run_all_layers(delivery="transactional"))


def test_a_refused_record_of_a_transaction_is_told_by_the_confluent_client(setup: Setup) -> None:
    """The library says of the record no more than that it was dropped."""
    setup.create_topics()
    setup.allow([*(row for row in ALL_LAYERS if row.right != Right("topic", "retry-orders", "Write")), TRANSACTIONS])
    with pytest.raises(WriteFailedError, match="TOPIC_AUTHORIZATION_FAILED"):
        setup.run_all_layers(delivery="transactional", client="confluent")


def test_all_layers_work_on_without_what_is_good_to_have_and_say_so(setup: Setup, log: list[str]) -> None:
    missing = [row.right for row in ALL_LAYERS if row.right.operation == "DescribeConfigs"]
    assert len(missing) == 4
    setup.create_topics()
    setup.allow([row for row in ALL_LAYERS if row.right not in missing])
    setup.run_all_layers()
    for right in missing:
        assert any("DescribeConfigs" in message and f"{setup.here(right).name} is not" in message for message in log)


@pytest.mark.parametrize("name", ["retry-orders", "redirect-orders"])
def test_without_delete_nothing_is_purged_and_that_is_said_once(
    name: str, setup: Setup, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kafetrain.retry.loop.PURGE_EVERY_S", 0.2)
    monkeypatch.setattr("kafetrain.retry.purge.WORTH_A_REGISTRATION", 0)
    monkeypatch.setattr("kafetrain.tracker.reader.FORGET_EVERY_S", 0.2)
    right = Right("topic", name, "Delete")
    setup.create_topics()
    setup.allow([other for other in ALL_LAYERS if other.right != right])

    def said() -> list[str]:
        return [message for message in log if "are not purged" in message and "lacks Delete there" in message]

    with KafkaConsumer.resilient(setup.settings(), setup.topic, setup.handle) as consumer:
        wait_for("all is through", lambda: setup.is_through, timeout=120, check=consumer.check)
        wait_for("it is said", said, check=consumer.check)
    assert len(said()) == 1


@pytest.mark.parametrize("row", [row for row in LAYER_1 if row.right.name == "redirect-orders"][:2], ids=str)
def test_layer_1_without_a_right_on_the_locks_ends_with_an_error_that_names_it(row: Row, setup: Setup) -> None:
    setup.create_topics()
    setup.allow([other for other in LAYER_1 if other != row])
    error_without(row.right, setup, setup.run_layer_1)


@pytest.mark.parametrize("row", NO_RETRIES, ids=str)
def test_layer_3_without_one_right_ends_with_an_error_that_names_it(row: Row, setup: Setup) -> None:
    setup.allow([other for other in NO_RETRIES if other != row])
    error_without(row.right, setup, setup.run_without_retries)


@pytest.mark.parametrize("row", [row for row in CREATING if row.right.operation == "Create"], ids=str)
def test_a_topic_that_may_not_be_created_is_an_error_that_names_it(row: Row, setup: Setup) -> None:
    setup.allow([*ALL_LAYERS, *(other for other in CREATING if other != row)])
    text = error_without(row.right, setup, lambda: setup.run_all_layers(auto_create_topics=True))
    assert "lacks Create there" in text
    assert "kafka-topics.sh" in text
