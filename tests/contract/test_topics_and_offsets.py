"""What the layers rely on of an admin client: topics, offsets of groups, ends of partitions; on every broker."""

from __future__ import annotations

import os

import pytest

from kafetrain.client.ports import ClientError, Committed, NotOwnerError, TopicSpec
from kafetrain.record import TopicPartition
from tests.contract.conftest import PARTITIONS, Cluster, client_of
from tests.contract.ports import places, read
from tests.waiting import wait_for


def test_describing_leaves_out_missing_topics_and_creates_none(cluster: Cluster) -> None:
    topic, missing = cluster.topic(), f"missing-{os.urandom(4).hex()}"
    assert set(cluster.admin.describe_topics([topic, missing])) == {topic}
    assert cluster.admin.describe_topics([missing]) == {}


def test_describing_tells_the_partitions_and_replicas(cluster: Cluster) -> None:
    topic = cluster.topic()
    found = cluster.admin.describe_topics([topic])[topic]
    assert (found.name, found.partitions, found.replication_factor) == (topic, PARTITIONS, 1)
    assert cluster.admin.describe_topics([]) == {}


@pytest.mark.needs("admin")
def test_a_topic_id_changes_with_a_new_topic_of_the_same_name(cluster: Cluster) -> None:
    topic = cluster.topic()
    first = cluster.admin.describe_topics([topic])[topic].topic_id
    cluster.delete_topic(topic)
    wait_for("the topic is gone", lambda: not cluster.admin.describe_topics([topic]))
    cluster.admin.create_topics([TopicSpec(topic, 1)])
    second = cluster.admin.describe_topics([topic])[topic].topic_id
    assert len(first) == len(second) == 36
    assert first != second


@pytest.mark.needs("admin")
def test_creating_twice_is_fine_and_leaves_the_first_one(cluster: Cluster) -> None:
    topic = f"contract-{os.urandom(4).hex()}"
    cluster.admin.create_topics([TopicSpec(topic, 3, configs={"cleanup.policy": "compact"})])
    cluster.admin.create_topics([TopicSpec(topic, 5)])
    assert cluster.admin.describe_topics([topic])[topic].partitions == 3
    assert cluster.admin.topic_configs([topic])[topic]["cleanup.policy"] == "compact"


@pytest.mark.needs("admin")
def test_an_error_in_creating_names_the_topic_and_the_reason(cluster: Cluster) -> None:
    topic = f"contract-{os.urandom(4).hex()}"
    with pytest.raises(ClientError, match=rf"{topic}.*cleanup\.policy") as caught:
        cluster.admin.create_topics([TopicSpec(topic, 1, configs={"cleanup.policy": "nonsense"})])
    assert not caught.value.retriable


@pytest.mark.needs("admin")
def test_growing_raises_the_partition_count_and_never_lowers_it(cluster: Cluster) -> None:
    topic = cluster.topic()
    for wanted, expected in ((PARTITIONS + 2, PARTITIONS + 2), (PARTITIONS, PARTITIONS + 2)):
        cluster.admin.grow_topic(topic, wanted)
        assert cluster.admin.describe_topics([topic])[topic].partitions == expected
    with pytest.raises(ClientError, match="does not exist"):
        cluster.admin.grow_topic("missing-topic", 2)


@pytest.mark.needs("configs")
def test_topic_settings_come_with_their_defaults(cluster: Cluster) -> None:
    topic = cluster.topic({"max.message.bytes": "2000"})
    found = cluster.admin.topic_configs([topic])[topic]
    assert found["max.message.bytes"] == "2000"
    assert found["cleanup.policy"] == "delete"


@pytest.mark.needs("configs")
def test_settings_that_the_broker_does_not_tell_are_an_error(cluster: Cluster) -> None:
    with pytest.raises(ClientError, match="missing-topic"):
        cluster.admin.topic_configs(["missing-topic"])


def test_offsets_of_a_group_are_read_back_with_their_metadata(cluster: Cluster) -> None:
    first, second, *_ = places(cluster.topic())
    group = f"group-{first.topic}"
    cluster.admin.set_committed(group, {first: Committed(7, "seven")})
    assert cluster.admin.committed(group, [first, second]) == {first: Committed(7, "seven")}


def test_metadata_that_the_other_client_committed_is_read_whole_and_with_nothing_behind_it(
    either_cluster: Cluster,
) -> None:
    place = TopicPartition(either_cluster.topic(), 0)
    others = {"confluent": "kafka-python", "kafka-python": "confluent"}[either_cluster.library]
    other = client_of(others, {"bootstrap_servers": either_cluster.servers, "group_id": "g"}, {})
    writer = either_cluster.close_later(other.admin())
    for length in range(1, 60):
        written = {place: Committed(5, "x" * length)}
        writer.set_committed("shared", written)
        assert either_cluster.admin.committed("shared", [place]) == written


@pytest.mark.needs("rebalances")
def test_offsets_of_a_group_with_members_are_theirs(cluster: Cluster) -> None:
    topic = cluster.topic()
    cluster.member(topic, "with-members").join()
    with pytest.raises(NotOwnerError):
        cluster.admin.set_committed("with-members", {TopicPartition(topic, 0): Committed(1)})


@pytest.mark.needs("rebalances")
def test_members_of_a_group_are_counted_and_an_unknown_group_has_none(cluster: Cluster) -> None:
    topic = cluster.topic()
    group = f"group-{topic}"
    assert cluster.admin.group_members(group) == 0
    member = cluster.member(topic)
    member.join()
    assert cluster.admin.group_members(group) == 1
    member.consumer.close()
    wait_for("the group is empty", lambda: cluster.admin.group_members(group) == 0)


def test_end_offsets_are_the_same_from_the_admin_client_and_from_a_reader(cluster: Cluster) -> None:
    topic = cluster.topic()
    cluster.write(topic, 3, partition=1)
    expected = dict.fromkeys(places(topic), 0) | {TopicPartition(topic, 1): 3}
    assert cluster.admin.end_offsets(places(topic)) == expected
    assert cluster.reader().end_offsets(places(topic)) == expected


@pytest.mark.needs("purges")
def test_deleted_records_move_the_beginning(cluster: Cluster) -> None:
    place = TopicPartition(cluster.topic(), 0)
    cluster.write(place.topic, 5)
    cluster.admin.delete_records({place: 3})
    reader = cluster.reader()
    assert reader.beginning_offsets([place]) == {place: 3}
    reader.assign({place: None})
    assert [record.offset for record in read(reader, {place: 5})] == [3, 4]


@pytest.mark.needs("purges")
def test_a_refused_deletion_is_an_error(cluster: Cluster) -> None:
    place = TopicPartition(cluster.topic({"cleanup.policy": "compact"}), 0)
    cluster.write(place.topic, 5)
    with pytest.raises(ClientError, match=r"POLICY_VIOLATION|PolicyViolation"):
        cluster.admin.delete_records({place: 3})
