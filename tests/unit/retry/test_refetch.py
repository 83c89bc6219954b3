"""Fetching dropped followers again, by offset, from a retry topic that is purged meanwhile."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from kafetrain.errors import FatalError
from kafetrain.record import TopicPartition
from kafetrain.retry.refetch import Refetcher
from kafetrain.testing.simulated import SimulatedClock, SimulatedCluster

PLACE = TopicPartition("retry-orders", 0)
NO_TIME = timedelta(0)


@pytest.fixture
def cluster() -> SimulatedCluster:
    cluster = SimulatedCluster(SimulatedClock(), threads=False)
    cluster.create_topic(PLACE.topic)
    cluster.write(PLACE.topic, b"k", *(b"%d" % n for n in range(40)))
    return cluster


def fetched(refetcher: Refetcher, *offsets: int) -> list[int]:
    """In a few tries."""
    held: Any = object()
    for _ in range(3):
        if found := list(refetcher.fetch({PLACE: dict.fromkeys(offsets, held)}, NO_TIME)):
            return [record.offset for _, _, record in found]
    return []


def test_what_was_purged_between_two_fetches_is_no_obstacle(cluster: SimulatedCluster) -> None:
    client = cluster.client()
    client.instance.fetch_at_most = 2
    refetcher = Refetcher(client.reader)
    assert fetched(refetcher, 3) == [3]
    cluster.delete_records(PLACE.topic, 20)
    assert fetched(refetcher, 20, 21) == [20, 21]
    cluster.delete_records(PLACE.topic, 30)
    assert fetched(refetcher, 31) == [31]


def test_a_record_that_is_wanted_and_was_deleted_is_a_fatal_error(cluster: SimulatedCluster) -> None:
    refetcher = Refetcher(cluster.client().reader)
    cluster.delete_records(PLACE.topic, 20)
    with pytest.raises(FatalError, match=r"deleted from the retry topic.*retry-orders\[0\]"):
        fetched(refetcher, 3)
