"""What the doctor finds on clusters that have something wrong with them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from kafetrain.app.doctor import FINE, WARNING, WRONG, examine
from kafetrain.client.kafka_python_cluster import ClusterDescription
from kafetrain.client.ports import AdminPort, ClientError, Committed
from kafetrain.record import TopicPartition
from kafetrain.settings import Settings
from tests.unit.fakes import FakeAdmin
from tests.unit.topic_setup.clusters import good_cluster

ALL = frozenset({"READ", "WRITE", "DESCRIBE", "DESCRIBE_CONFIGS", "CREATE", "DELETE"})


class Admin(FakeAdmin):
    """With offsets: two partitions have 10 records each, and 3 are not committed."""

    def committed(self, group: str, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Committed]:
        return {place: Committed(7 if place.partition == 1 else 10) for place in partitions if group == "billing"}

    def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return dict.fromkeys(partitions, 10)


@dataclass
class Cluster:
    """All is well, but for what a test says."""

    dead: dict[str, str] = field(default_factory=dict)
    error: ClientError | None = None
    brokers: dict[int, str] = field(default_factory=lambda: {1: "kafka:1"})
    topics: dict[str, frozenset[str] | None] = field(default_factory=dict)
    groups: dict[str, frozenset[str] | None] = field(default_factory=dict)
    cluster: frozenset[str] | None = ALL
    port: FakeAdmin = field(default_factory=lambda: Admin(**vars(good_cluster())))

    def unreachable(self, address: str) -> str | None:
        return self.dead.get(address)

    def describe(self) -> ClusterDescription:
        if self.error is not None:
            raise self.error
        return ClusterDescription(self.brokers, 1, "4.0", self.cluster)

    def topic_operations(self, topics: Collection[str]) -> Mapping[str, frozenset[str] | None]:
        return {name: self.topics.get(name, ALL) for name in topics if name in self.port.topics}

    def group_operations(self, groups: Collection[str]) -> Mapping[str, frozenset[str] | None]:
        return {name: self.groups.get(name) for name in groups}

    def admin(self) -> AdminPort:
        return self.port


def found(cluster: Cluster, level: str, topics: Collection[str] = ("orders",), **settings: Any) -> list[str]:
    given = Settings(**{"bootstrap_servers": "kafka:1", "group_id": "billing", **settings})
    return [finding.text for finding in examine(cluster, given, list(topics)) if finding.level == level]


def test_a_good_cluster_has_nothing_wrong_and_the_lag_is_told() -> None:
    assert found(Cluster(), WRONG) == []
    fine = found(Cluster(), FINE)
    assert "kafka:1 accepts connections" in fine
    assert "group billing is 3 records behind in orders, 3 of them in partition 1" in fine
    assert "group billing-retry has committed nothing of retry-orders yet" in fine
    assert "nothing that is needed is forbidden, as far as brokers tell" in fine


def test_brokers_that_cannot_be_reached() -> None:
    refused = {"kafka:1": "Connection refused"}
    assert found(Cluster(dead=refused), WRONG) == ["no broker can be reached, so nothing else can be looked at"]
    assert found(Cluster(dead=refused), WARNING, bootstrap_servers="kafka:1,other:1") == [
        "kafka:1: Connection refused. Is the address right, and does a firewall let it through?"
    ]
    (text,) = found(Cluster(brokers={1: "kafka:1", 2: "inner:1"}, dead={"inner:1": "Name or service not known"}), WRONG)
    assert text.startswith("broker 2 tells clients to use inner:1, which cannot be reached: Name or service not known")


def test_what_the_client_says_is_passed_on() -> None:
    assert found(Cluster(error=ClientError("the admin was refused by Kafka")), WRONG) == [
        "the admin was refused by Kafka"
    ]


@pytest.mark.parametrize(
    ("what", "level", "text"),
    [
        (
            {"topics": {"dlq-orders": frozenset({"DESCRIBE", "DESCRIBE_CONFIGS"})}},
            WRONG,
            "may not Write on topic dlq-orders",
        ),
        ({"topics": {"orders": frozenset({"DESCRIBE_CONFIGS"})}}, WRONG, "may not Read and Describe on topic orders"),
        (
            {"topics": {"orders": ALL - {"DESCRIBE_CONFIGS"}}},
            WARNING,
            "may not DescribeConfigs on topic orders: it cannot",
        ),
        (
            {"topics": {"redirect-orders": ALL - {"DELETE"}}},
            WARNING,
            "may not Delete on topic redirect-orders: what is done is not purged",
        ),
        ({"groups": {"billing-retry": frozenset({"DESCRIBE"})}}, WRONG, "may not Read on group billing-retry"),
        ({"topics": {"orders": None}, "groups": {"billing": None}}, FINE, "nothing that is needed is forbidden"),
    ],
)
def test_permissions_that_lack(what: dict[str, Any], level: str, text: str) -> None:
    assert any(text in said for said in found(Cluster(**what), level))
    if level is not WRONG:
        assert found(Cluster(**what), WRONG) == []


def test_topics_that_are_missing_are_created_or_are_wrong() -> None:
    cluster = Cluster(cluster=frozenset())
    for name in ("retry-orders", "redirect-orders", "dlq-orders"):
        del cluster.port.topics[name]
    assert "retry-orders, redirect-orders, dlq-orders will be created at the first start" in found(cluster, FINE)
    assert found(cluster, WRONG) == []
    (text,) = found(cluster, WARNING)
    assert text.startswith("this user may not Create on the cluster: missing topics cannot be created")
    wrong = found(cluster, WRONG, auto_create_topics=False)
    assert len(wrong) == 3
    assert all("Put it right with: " in text for text in wrong)
    assert found(Cluster(), WRONG, ["nowhere"]) == ["nowhere does not exist"]


def test_a_setting_that_breaks_a_promise_is_wrong_and_the_command_is_told() -> None:
    cluster = Cluster()
    cluster.port.configs["redirect-orders"]["cleanup.policy"] = "delete"
    (text,) = found(cluster, WRONG)
    assert "redirect-orders: cleanup.policy is delete" in text
    assert "Put it right with: kafka-configs" in text


def test_without_topics_that_is_said() -> None:
    assert found(Cluster(), WARNING, []) == [
        "no topic is configured, so none was looked at: name them, or set KAFKA_TOPICS"
    ]
