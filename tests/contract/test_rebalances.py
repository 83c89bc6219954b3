"""What the layers rely on in a rebalance: work in flight is waited for, and what is completed is committed."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import pytest

from kafetrain.client.ports import Committed
from kafetrain.record import TopicPartition
from tests.contract.conftest import PARTITIONS, Cluster, Owner
from tests.contract.ports import MARGIN_S, eager_and_cooperative, places


@pytest.mark.needs("rebalances")
@eager_and_cooperative
def test_a_rebalance_waits_for_work_in_flight_and_commits_what_it_leaves(
    cluster: Cluster, options: dict[str, Any]
) -> None:
    """Meanwhile the owner's thread goes on: polls return in time, commits work, the membership stays."""
    topic = cluster.topic()
    for partition in range(PARTITIONS):
        cluster.write(topic, 5, partition)
    owner = cluster.member(topic, session_timeout_ms=1_000, **options)
    owner.join()
    owner.consumer.resume(owner.owned)
    owner.poll_until("all records", lambda: len(owner.delivered) == 20)
    owner.is_idle = False
    owner.completed = {place: Committed(place.partition + 1, "done") for place in places(topic)}

    other = cluster.member(topic, session_timeout_ms=1_000, **options)
    begins = threading.Event()

    def poll_other() -> None:
        while not begins.is_set():
            other.poll()

    thread = threading.Thread(target=poll_other)
    thread.start()
    try:
        owner.poll_until("revoking", lambda: owner.log[-1][0] == "revoking")
        going = owner.log[-1][1]
        until = time.monotonic() + 1.5  # longer than the session
        slowest = 0.0
        while time.monotonic() < until:
            began = time.monotonic()
            assert owner.poll(timedelta(milliseconds=5)) == []
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 0.005 + MARGIN_S
        early = min(going)
        owner.consumer.commit({early: Committed(4, "meanwhile")})
        assert cluster.admin.committed(f"group-{topic}", [early]) == {early: Committed(4, "meanwhile")}
        assert owner.asked > 10
        assert other.owned == set()

        owner.is_idle = True
        owner.poll_until("two each", lambda: len(owner.owned) == len(other.owned) == 2)
    finally:
        begins.set()
        thread.join()
    assert [what for what, _ in owner.log].count("revoking") == 1
    assert ("lost", going) not in owner.log
    committed = cluster.admin.committed(f"group-{topic}", going)
    assert committed == {place: Committed(place.partition + 1, "done") for place in going}
    other.poll_until("positions", lambda: all(other.consumer.position(place) is not None for place in other.owned))
    assert {p: other.consumer.position(p) for p in other.owned} == {p: p.partition + 1 for p in other.owned}


@pytest.mark.needs("rebalances")
def test_a_partition_that_comes_back_starts_paused_at_its_committed_offset(cluster: Cluster) -> None:
    """What was delivered before and not completed is delivered again, and not skipped."""
    topic = cluster.topic()
    for partition in range(PARTITIONS):
        cluster.write(topic, 5, partition)
    owner = cluster.member(topic)
    owner.join()
    owner.consumer.resume(owner.owned)
    owner.poll_until("all records", lambda: len(owner.delivered) == 20)
    owner.completed = {place: Committed(2) for place in places(topic)}
    other = cluster.member(topic)
    owner.poll_until("two each", lambda: other.poll() or (len(owner.owned) == len(other.owned) == 2))
    owner.delivered.clear()
    assert owner.poll() == []
    owner.consumer.resume(owner.owned)
    owner.poll_until("the rest again", lambda: len(owner.delivered) == 6)
    assert sorted((r.partition, r.offset) for r in owner.delivered) == [
        (place.partition, offset) for place in sorted(owner.owned) for offset in (2, 3, 4)
    ]


@pytest.mark.needs("rebalances")
def test_errors_of_the_owner_do_not_break_a_rebalance(cluster: Cluster) -> None:
    class Failing(Owner):
        def assigned(self, partitions: frozenset[TopicPartition]) -> None:
            super().assigned(partitions)
            raise ZeroDivisionError

        def revoking(self, partitions: frozenset[TopicPartition]) -> Any:
            self.log.append(("revoking", partitions))
            self.owned -= partitions
            raise ZeroDivisionError

    topic = cluster.topic()
    consumer = cluster.client(heartbeat_interval_ms=100).group_consumer("failing", auto_offset_reset="earliest")
    owner = Failing(cluster.close_later(consumer), [topic])
    owner.join()
    other = cluster.member(topic, "failing")
    owner.poll_until("two each", lambda: other.poll() or (len(owner.owned) == len(other.owned) == 2))
    assert [what for what, _ in owner.log] == ["assigned", "revoking", "assigned"]


@pytest.mark.needs("rebalances")
def test_a_wait_that_the_group_does_not_wait_for_ends_in_losing_the_partitions(cluster: Cluster) -> None:
    topic = cluster.topic()
    owner = cluster.member(topic, max_poll_interval_ms=1_000, session_timeout_ms=1_000)
    owner.join()
    owner.is_idle = False
    other = cluster.member(topic, max_poll_interval_ms=1_000, session_timeout_ms=1_000)
    owner.poll_until("lost", lambda: other.poll() or ("lost", frozenset(places(topic))) in owner.log)
    owner.is_idle = True


@pytest.mark.needs("rebalances")
@eager_and_cooperative
def test_closing_in_the_middle_of_a_rebalance_commits_what_is_completed(
    cluster: Cluster, options: dict[str, Any]
) -> None:
    topic = cluster.topic()
    owner = cluster.member(topic, **options)
    owner.join()
    owner.is_idle = False
    other = cluster.member(topic, **options)
    owner.poll_until("revoking", lambda: other.poll() or owner.log[-1][0] == "revoking")
    owner.is_idle = True
    owner.completed = {place: Committed(1) for place in places(topic)}
    began = time.monotonic()
    owner.consumer.close()
    assert time.monotonic() - began < 2 + MARGIN_S
    assert owner.owned == set()
    assert set(cluster.admin.committed(f"group-{topic}", places(topic))) == set(places(topic))
    other.join()
