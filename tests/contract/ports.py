"""What tests of the ports share: places, reading to a position, groups of two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

from kafetrain.client.ports import ClientError, Committed, ConsumerPort
from kafetrain.record import Record, TopicPartition
from tests.contract.conftest import A_MOMENT, PARTITIONS, Cluster, Owner
from tests.waiting import wait_for

MARGIN_S = 0.7  # what a busy machine may add to a deadline; far below what is waited for otherwise


eager_and_cooperative = pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="eager"),
        pytest.param(
            {"partition_assignment_strategy": [CooperativeStickyAssignor]},
            id="cooperative",
            marks=pytest.mark.needs("cooperative"),
        ),
    ],
)


def places(topic: str, count: int = PARTITIONS) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in range(count)]


def read(consumer: ConsumerPort, ends: Mapping[TopicPartition, int]) -> list[Record]:
    """Everything up to these positions."""
    records: list[Record] = []

    def is_there() -> bool:
        for batch in consumer.poll(A_MOMENT).values():
            records.extend(batch)
        return all((consumer.position(place) or 0) >= end for place, end in ends.items())

    wait_for(f"read to {dict(ends)}", is_there)
    return records


def two_members(cluster: Cluster, topic: str, **options: Any) -> tuple[Owner, Owner]:
    """A group of two with two partitions each."""
    owner = cluster.member(topic, **options)
    owner.join()
    other = cluster.member(topic, **options)
    owner.poll_until("two each", lambda: other.poll() or (len(owner.owned) == len(other.owned) == 2))
    return owner, other


def commits(owner: Owner, next_offsets: Mapping[TopicPartition, Committed]) -> bool:
    owner.poll()
    try:
        owner.consumer.commit(next_offsets)
    except ClientError:
        return False
    return True
