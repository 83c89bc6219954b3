"""What the layers rely on when they use a client: one test for each promise of the ports, on every broker."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

from kafetrain.client.kafka_python import OWNED_OPTIONS, known_options
from kafetrain.client.ports import (
    ClientError,
    Committed,
    ConsumerPort,
    NotOwnerError,
    OffsetOutOfRangeError,
    OutgoingRecord,
    RecordTooLargeForClientError,
    TopicSpec,
)
from kafetrain.record import Record, TopicPartition
from tests.contract.conftest import A_MOMENT, PARTITIONS, Cluster, Owner, client_of, frozen
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


# Topics and groups


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


# Producing


def test_a_record_arrives_as_it_was_sent_and_its_future_has_its_offset(cluster: Cluster) -> None:
    place = TopicPartition(cluster.topic(), 2)
    headers = [("a", b"1"), ("a", b"2"), ("empty", b"")]
    cluster.write(place.topic, 1, partition=2)
    sent = cluster.producer.send(OutgoingRecord(*place, b"key", b"value", headers, timestamp_ms=1_700_000_000_000))
    tombstone = cluster.producer.send(OutgoingRecord(*place, b"key", None))
    assert (sent.result(10), tombstone.result(10)) == (1, 2)
    reader = cluster.reader()
    reader.assign({place: 1})
    first, second = read(reader, {place: 3})
    assert (first.topic, first.partition, first.offset) == (*place, 1)
    assert (first.key, first.value, list(first.headers)) == (b"key", b"value", headers)
    assert first.timestamp == 1_700_000_000_000
    assert (second.key, second.value) == (b"key", None)


def test_records_of_a_partition_are_appended_in_the_order_of_the_calls(cluster: Cluster) -> None:
    place = TopicPartition(cluster.topic(), 0)
    sent = [cluster.producer.send(OutgoingRecord(*place, b"k", b"%d" % number)) for number in range(2_000)]
    cluster.producer.flush(timedelta(seconds=20))
    assert [future.result(0) for future in sent] == list(range(2_000))


@pytest.mark.needs("configs")
def test_a_record_that_is_too_large_fails_alone(cluster: Cluster) -> None:
    small, other = cluster.topic({"max.message.bytes": "20000"}), cluster.topic()
    before = cluster.producer.send(OutgoingRecord(small, 0, b"k", b"fits"))
    large = cluster.producer.send(OutgoingRecord(small, 0, b"k", os.urandom(50_000)))
    behind = [cluster.producer.send(OutgoingRecord(topic, 0, b"k", b"fits")) for topic in (small, other, small)]
    assert isinstance(large.exception(10), RecordTooLargeForClientError)
    assert before.result(10) == 0
    assert [future.result(10) for future in behind] == [1, 0, 2]
    assert cluster.producer.send(OutgoingRecord(small, 0, b"k", b"later")).result(10) == 3


@pytest.mark.needs("configs")
def test_records_that_fit_one_by_one_are_all_appended_in_their_order(cluster: Cluster) -> None:
    """However a client puts them together, a topic may take less than that at a time."""
    small = cluster.topic({"max.message.bytes": "20000"})
    sent = [cluster.producer.send(OutgoingRecord(small, 0, b"%d" % n, os.urandom(1_000))) for n in range(300)]
    assert [future.result(30) for future in sent] == list(range(300))


def test_sending_to_a_missing_topic_or_partition_fails_within_its_bound(cluster: Cluster) -> None:
    producer = cluster.client(max_block_ms=300).producer()
    cluster.later(lambda: producer.close(timedelta(seconds=1)))
    for place in (TopicPartition("missing-topic", 0), TopicPartition(cluster.topic(), PARTITIONS)):
        began = time.monotonic()
        sent = producer.send(OutgoingRecord(*place, b"k", b"v"))
        assert time.monotonic() - began < 0.6 + MARGIN_S
        assert isinstance(sent.exception(0), ClientError)


def test_a_record_that_no_broker_could_take_fails_and_not_by_raising(cluster: Cluster) -> None:
    sent = cluster.producer.send(OutgoingRecord(cluster.topic(), 0, None, None))
    error = sent.exception(0)
    assert isinstance(error, ClientError)
    assert not error.retriable


def test_a_closed_producer_takes_nothing_more_and_its_records_have_ended(cluster: Cluster) -> None:
    topic = cluster.topic()
    producer = cluster.client().producer()
    sent = [producer.send(OutgoingRecord(topic, 0, b"k", b"v")) for _ in range(100)]
    producer.close(timedelta(seconds=10))
    assert all(future.done() and future.exception() is None for future in sent)
    assert "closed" in str(producer.send(OutgoingRecord(topic, 0, b"k", b"v")).exception(0))
    producer.close(timedelta(seconds=1))


# Reading without a group


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


# Groups


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


def two_members(cluster: Cluster, topic: str, **options: Any) -> tuple[Owner, Owner]:
    """A group of two with two partitions each."""
    owner = cluster.member(topic, **options)
    owner.join()
    other = cluster.member(topic, **options)
    owner.poll_until("two each", lambda: other.poll() or (len(owner.owned) == len(other.owned) == 2))
    return owner, other


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
def test_a_wait_that_the_group_does_not_wait_for_ends_in_losing_the_partitions(cluster: Cluster) -> None:
    topic = cluster.topic()
    owner = cluster.member(topic, max_poll_interval_ms=1_000, session_timeout_ms=1_000)
    owner.join()
    owner.is_idle = False
    other = cluster.member(topic, max_poll_interval_ms=1_000, session_timeout_ms=1_000)
    owner.poll_until("lost", lambda: other.poll() or ("lost", frozenset(places(topic))) in owner.log)
    owner.is_idle = True


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


# Outages


def test_while_a_broker_is_silent_polls_return_and_commits_fail(
    either_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And afterwards all goes on by itself."""
    monkeypatch.setattr(either_cluster.bounds, "COMMIT_TIMEOUT_MS", 200)
    topic = either_cluster.topic()
    place = TopicPartition(topic, 0)
    owner, reader = either_cluster.member(topic), either_cluster.reader()
    owner.join()
    owner.consumer.resume(owner.owned)
    reader.assign({place: None})
    either_cluster.write(topic, 1)
    assert len(read(reader, {place: 1})) == 1
    owner.poll_until("the first record", lambda: owner.delivered)
    with frozen(either_cluster.broker):
        for poll in (owner.poll, reader.poll):
            for _ in range(5):
                began = time.monotonic()
                assert not poll(timedelta(milliseconds=50))
                assert time.monotonic() - began < 0.05 + MARGIN_S
        with pytest.raises(ClientError) as caught:
            owner.consumer.commit({place: Committed(1)})
        assert caught.value.retriable
    either_cluster.write(topic, 1)
    assert [record.offset for record in read(reader, {place: 2})] == [1]
    owner.poll_until("the second record", lambda: len(owner.delivered) == 2)
    owner.consumer.commit({place: Committed(2)})


def test_clients_go_on_when_a_broker_comes_back(either_cluster: Cluster) -> None:
    cluster = either_cluster
    if not cluster.broker.can_restart:
        pytest.skip(f"a broker of kind {cluster.broker.kind!r} cannot be restarted")
    topic = cluster.topic()
    place = TopicPartition(topic, 0)
    owner, reader = cluster.member(topic), cluster.reader()
    owner.join()
    owner.consumer.resume(owner.owned)
    reader.assign({place: None})
    cluster.write(topic, 1)
    owner.poll_until("the first record", lambda: owner.delivered)
    read(reader, {place: 1})
    cluster.broker.kill()
    for poll in (owner.poll, reader.poll):
        for _ in range(5):
            began = time.monotonic()
            assert not poll(timedelta(milliseconds=50))
            assert time.monotonic() - began < 0.05 + MARGIN_S
    meanwhile = cluster.producer.send(OutgoingRecord(topic, 0, b"k", b"meanwhile"))
    cluster.broker.start()
    offset = meanwhile.result(30)
    read(reader, {place: offset + 1})
    owner.poll_until("the second record", lambda: owner.delivered[-1].offset == offset)
    wait_for("a commit", lambda: commits(owner, {place: Committed(offset + 1)}))
    assert cluster.admin.committed(f"group-{topic}", [place]) == {place: Committed(offset + 1)}


def commits(owner: Owner, next_offsets: Mapping[TopicPartition, Committed]) -> bool:
    owner.poll()
    try:
        owner.consumer.commit(next_offsets)
    except ClientError:
        return False
    return True


# Building


LOGIN = {
    "group_id": "g",
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "PLAIN",
    "sasl_username": "user",
    "sasl_password": "hunter2",
}


@pytest.mark.parametrize("library", ["kafka-python", "confluent"])
@pytest.mark.parametrize("role", ["admin", "producer", "reader", "group_consumer"])
def test_a_broker_that_does_not_answer_is_named_and_nothing_is_left_behind(role: str, library: str) -> None:
    before = threading.active_count()
    settings = {**LOGIN, "bootstrap_servers": "127.0.0.1:1,127.0.0.1:2"}
    client = client_of(library, settings, {"bootstrap_timeout_ms": 200})
    arguments: dict[str, Any] = {"group": "g", "auto_offset_reset": "earliest"} if role == "group_consumer" else {}
    with pytest.raises(ClientError, match=r"127\.0\.0\.1:1,127\.0\.0\.1:2.*(REFUSED|refused|timed out)") as caught:
        getattr(client, role)(**arguments)
    assert caught.value.retriable
    assert "hunter2" not in repr(caught.value)
    assert threading.active_count() == before


@pytest.mark.parametrize("role", ["admin", "producer", "reader"])
def test_a_refused_login_is_told_at_once_and_is_not_retriable(either_cluster: Cluster, role: str) -> None:
    # Which this listener does not speak.
    client = client_of(either_cluster.library, {**LOGIN, "bootstrap_servers": either_cluster.servers}, {})
    began = time.monotonic()
    with pytest.raises(ClientError, match=r"refused.*sasl_") as caught:
        getattr(client, role)()
    assert time.monotonic() - began < 5
    assert not caught.value.retriable
    assert "hunter2" not in str(caught.value)


@pytest.mark.needs("client options")
def test_options_reach_the_clients_that_know_them(cluster: Cluster) -> None:
    """`linger_ms` is the producer's alone, `fetch_min_bytes` the consumer's; each of the others would refuse it."""
    client = cluster.client(linger_ms=1, fetch_min_bytes=1, retry_backoff_ms=10, request_timeout_ms=60_000)
    cluster.close_later(client.admin())
    cluster.close_later(client.reader())
    client.producer().close(timedelta(seconds=1))


def test_every_option_that_is_ours_is_one_that_the_library_has() -> None:
    known = known_options()
    assert known.keys() == {"consumer", "producer", "admin"}
    assert frozenset().union(*known.values()) >= OWNED_OPTIONS
