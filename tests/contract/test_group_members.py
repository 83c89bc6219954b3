"""What the layers rely on of a group's member: where it begins, what it commits, how it leaves; on every broker."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest

from kafetrain.client.ports import Committed, NotOwnerError
from kafetrain.record import TopicPartition
from tests.contract.conftest import Cluster
from tests.contract.ports import MARGIN_S, places, two_members
from tests.waiting import wait_for


def test_assigned_partitions_deliver_nothing_until_resumed(cluster: Cluster) -> None:
    topic = cluster.topic()
    cluster.write(topic, 5)
    owner = cluster.member(topic)
    owner.join()
    assert owner.log == [("assigned", frozenset(places(topic)))], "an empty set is not worth telling"
    for _ in range(5):
        assert owner.poll() == []
    owner.consumer.resume(owner.owned)
    owner.poll_until("all records", lambda: len(owner.delivered) == 5)


def test_a_group_begins_at_its_committed_offset_or_by_its_reset_policy(cluster: Cluster) -> None:
    topic = cluster.topic()
    first, second, third, _ = places(topic)
    for partition in range(3):
        cluster.write(topic, 5, partition)
    for reset in ("earliest", "latest"):
        cluster.admin.set_committed(f"{topic}-{reset}", {first: Committed(2)})
    expected = {"earliest": {first: 2, second: 0, third: 0}, "latest": {first: 2, second: 5, third: 5}}
    owners = {reset: cluster.member(topic, f"{topic}-{reset}", reset=reset) for reset in expected}

    def are_known() -> bool:
        for owner in owners.values():
            owner.poll()
        return all(owner.consumer.position(place) is not None for owner in owners.values() for place in places(topic))

    wait_for("positions", are_known)
    for reset, positions in expected.items():
        assert {place: owners[reset].consumer.position(place) for place in positions} == positions


def test_a_commit_is_durable_when_it_returns_and_keeps_its_metadata(cluster: Cluster) -> None:
    topic = cluster.topic()
    owner = cluster.member(topic)
    owner.join()
    owner.consumer.commit({TopicPartition(topic, 1): Committed(3, "three")})
    owner.consumer.commit({})
    found = cluster.admin.committed(f"group-{topic}", places(topic))
    assert found == {TopicPartition(topic, 1): Committed(3, "three")}


@pytest.mark.needs("rebalances")
def test_a_partition_of_another_member_cannot_be_committed(cluster: Cluster) -> None:
    topic = cluster.topic()
    owner, other = two_members(cluster, topic)
    theirs = next(iter(other.owned))
    with pytest.raises(NotOwnerError):
        owner.consumer.commit({theirs: Committed(1)})
    assert cluster.admin.committed(f"group-{topic}", [theirs]) == {}


def test_partitions_that_are_not_ours_cannot_be_moved_and_pausing_them_does_nothing(cluster: Cluster) -> None:
    owner = cluster.member(cluster.topic())
    strange = TopicPartition("another-topic", 0)
    owner.consumer.pause([strange])
    owner.consumer.resume([strange])
    assert owner.consumer.position(strange) is None
    with pytest.raises(NotOwnerError):
        owner.consumer.seek(strange, 0)


@pytest.mark.needs("rebalances")
def test_a_member_that_was_removed_loses_its_partitions_and_cannot_commit(cluster: Cluster) -> None:
    topic = cluster.topic()
    owner = cluster.member(topic)
    owner.join()
    cluster.remove_members(f"group-{topic}")
    with pytest.raises(NotOwnerError):
        owner.consumer.commit({TopicPartition(topic, 0): Committed(1)})
    owner.poll_until("lost, and assigned again", lambda: len(owner.log) == 3)
    everything = frozenset(places(topic))
    assert owner.log == [("assigned", everything), ("lost", everything), ("assigned", everything)]
    owner.consumer.commit({TopicPartition(topic, 0): Committed(1)})


@pytest.mark.needs("rebalances")
def test_closing_asks_for_what_is_completed_and_leaves_the_group_at_once(cluster: Cluster) -> None:
    topic = cluster.topic()
    owner = cluster.member(topic)
    owner.join()
    owner.completed = {TopicPartition(topic, 3): Committed(9, "last")}
    owner.consumer.close()
    assert owner.log[-1] == ("revoking", frozenset(places(topic)))
    found = cluster.admin.committed(f"group-{topic}", places(topic))
    assert found == {TopicPartition(topic, 3): Committed(9, "last")}
    assert owner.poll() == []
    owner.consumer.close()
    began = time.monotonic()
    cluster.member(topic).join()
    assert time.monotonic() - began < 5, "the group waited for a member that had left"


@pytest.mark.needs("rebalances")
def test_closing_waits_for_work_in_flight_within_a_bound(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the owner's thread, which can then not finish the work."""
    monkeypatch.setattr(cluster.bounds, "CLOSE_TIMEOUT_MS", 200)
    topic = cluster.topic()
    owner = cluster.member(topic)
    owner.join()
    owner.is_idle = False
    owner.completed = {TopicPartition(topic, 0): Committed(1)}
    began = time.monotonic()
    owner.consumer.close()
    assert time.monotonic() - began < 1 + MARGIN_S
    assert owner.log[-1] == ("revoking", frozenset(places(topic)))
    assert cluster.admin.committed(f"group-{topic}", places(topic)) == {}


@pytest.mark.needs("rebalances")
def test_another_thread_may_close_a_consumer_that_polls(cluster: Cluster) -> None:
    owner = cluster.member(cluster.topic())
    owner.join()
    results: list[object] = []
    polling = threading.Event()

    def poll() -> None:
        polling.set()
        try:
            results.append(owner.poll(timedelta(seconds=20)))
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=poll)
    thread.start()
    polling.wait()
    owner.consumer.close()
    thread.join(10)
    assert results == [[]]
