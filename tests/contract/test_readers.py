"""What the layers rely on of a consumer without a group: positions, pauses, timeouts, transactions; on every broker."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from kafetrain.client.ports import OffsetOutOfRangeError, OutgoingRecord
from kafetrain.record import TopicPartition
from tests.contract.conftest import A_MOMENT, PARTITIONS, Cluster
from tests.contract.ports import MARGIN_S, places, read
from tests.waiting import wait_for


def test_a_reader_begins_where_it_is_told_and_goes_on_where_it_is(cluster: Cluster) -> None:
    topic = cluster.topic()
    for partition in (0, 1):
        cluster.write(topic, 5, partition)
    first, second, *_ = places(topic)
    reader = cluster.reader()
    reader.assign({first: None})
    assert [record.value for record in read(reader, {first: 5})] == [b"v%d" % number for number in range(5)]
    reader.assign({first: None, second: 3})
    assert [(r.partition, r.offset) for r in read(reader, {first: 5, second: 5})] == [(1, 3), (1, 4)]
    reader.assign({})
    assert reader.poll(A_MOMENT) == {}
    assert reader.position(first) is None
    reader.assign({first: None})
    assert len(read(reader, {first: 5})) == 5


def test_a_position_out_of_range_is_an_error_until_it_is_moved(cluster: Cluster) -> None:
    beyond, fine, *_ = places(cluster.topic())
    for partition in (0, 1):
        cluster.write(fine.topic, 3, partition)
    reader = cluster.reader()
    reader.assign({beyond: 100, fine: 0})
    delivered = 0

    def is_raised() -> OffsetOutOfRangeError | None:
        nonlocal delivered
        try:
            delivered += sum(len(batch) for batch in reader.poll(A_MOMENT).values())
        except OffsetOutOfRangeError as error:
            return error
        return None

    error = wait_for("the error", is_raised)
    assert error is not None
    assert error.partitions == {beyond}
    reader.seek(beyond, 1)
    assert delivered + len(read(reader, {beyond: 3, fine: 3})) == 5


def test_polling_takes_no_longer_than_its_timeout(cluster: Cluster) -> None:
    """Idle, paused, or with nothing assigned."""
    first, second, *_ = places(cluster.topic())
    reader = cluster.reader()

    def poll_for(seconds: float) -> None:
        began = time.monotonic()
        assert reader.poll(timedelta(seconds=seconds)) == {}
        assert time.monotonic() - began < seconds + MARGIN_S

    poll_for(0.1)
    reader.assign({first: None, second: None})
    wait_for("positions", lambda: reader.poll(A_MOMENT) or reader.position(second) == 0)
    for seconds in (0.0, 0.005, 0.1):
        poll_for(seconds)
    reader.pause([first, second])
    for seconds in (0.0, 0.005, 0.1):
        poll_for(seconds)


def test_a_poll_gives_no_more_records_than_asked_for(cluster: Cluster) -> None:
    place = TopicPartition(cluster.topic(), 0)
    cluster.write(place.topic, 20)
    reader = cluster.reader()
    reader.assign({place: None})
    batches: list[list[int]] = []

    def all_read() -> bool:
        batches.extend([r.offset for r in batch] for batch in reader.poll(A_MOMENT, max_records=7).values())
        return sum(map(len, batches)) == 20

    wait_for("all records", all_read)
    assert [offset for batch in batches for offset in batch] == list(range(20))
    assert max(map(len, batches)) == 7


def test_a_paused_partition_delivers_nothing_and_misses_nothing(cluster: Cluster) -> None:
    first, second, *_ = places(cluster.topic())
    for partition in (0, 1):
        cluster.write(first.topic, 600, partition)
    reader = cluster.reader()
    reader.assign({first: 0, second: 0})
    seen: dict[TopicPartition, list[int]] = {first: [], second: []}

    def poll() -> bool:
        for place, batch in reader.poll(A_MOMENT, max_records=50).items():
            seen[place] += [record.offset for record in batch]
        return False

    wait_for("the first records of both", lambda: poll() or (seen[first] and seen[second]))
    reader.pause([first])
    so_far = len(seen[first])
    wait_for("the end of the other", lambda: poll() or len(seen[second]) == 600)
    assert len(seen[first]) == so_far
    reader.resume([first])
    wait_for("the end of both", lambda: poll() or len(seen[first]) == 600)
    assert seen == {first: list(range(600)), second: list(range(600))}


@pytest.mark.needs("transactions")
def test_end_offsets_count_the_records_of_open_transactions(cluster: Cluster) -> None:
    place = TopicPartition(cluster.topic(), 0)
    producer = cluster.transactional()
    producer.send(place.topic, b"open", partition=0).get(10)
    reader = cluster.reader()
    assert reader.end_offsets([place]) == {place: 1}
    reader.assign({place: None})
    wait_for("a position", lambda: reader.poll(A_MOMENT) or reader.position(place) is not None)
    assert not reader.poll(timedelta(milliseconds=200)), "delivered before it was committed"
    producer.commit_transaction()
    assert [record.value for record in read(reader, {place: 2})] == [b"open"]


@pytest.mark.needs("transactions")
def test_a_reader_reaches_the_end_behind_an_aborted_record(cluster: Cluster) -> None:
    place = TopicPartition(cluster.topic(), 0)
    cluster.write(place.topic, 1)
    producer = cluster.transactional()
    producer.send(place.topic, b"aborted", partition=0).get(10)
    producer.abort_transaction()
    reader = cluster.reader()
    reader.assign({place: None})
    ends = reader.end_offsets([place])
    assert ends == {place: 3}
    assert [record.value for record in read(reader, ends)] == [b"v0"]


@pytest.mark.needs("admin")
def test_a_partition_that_a_topic_has_grown_can_be_written_and_read_at_once(cluster: Cluster) -> None:
    topic = cluster.topic()
    cluster.write(topic, 1)
    reader = cluster.reader()
    reader.assign({TopicPartition(topic, 0): None})
    read(reader, {TopicPartition(topic, 0): 1})
    cluster.admin.grow_topic(topic, PARTITIONS + 1)
    grown = TopicPartition(topic, PARTITIONS)
    assert cluster.producer.send(OutgoingRecord(*grown, b"k", b"new")).result(10) == 0
    assert reader.end_offsets([grown, TopicPartition(topic, 0)]) == {grown: 1, TopicPartition(topic, 0): 1}
    reader.assign({TopicPartition(topic, 0): None, grown: None})
    assert [record.value for record in read(reader, {grown: 1})] == [b"new"]
