"""The transactional producer port: all or nothing, and nothing of whom the group has given up."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from kafetrain.client.ports import (
    ClientError,
    Committed,
    NotOwnerError,
    OutcomeUnknownError,
    OutgoingRecord,
    RecordTooLargeForClientError,
    TransactionalClient,
    TransactionalProducerPort,
)
from kafetrain.record import TopicPartition
from tests.contract.conftest import A_MOMENT, Cluster, Owner
from tests.waiting import wait_for

pytestmark = pytest.mark.needs("transactional producers")


class Bench:
    """A member of a group, and transactions in its name."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.source, self.target = cluster.topic(), TopicPartition(cluster.topic(), 0)
        self.group, self.id = f"group-{self.source}", f"kafetrain-{self.source}"
        self.place = TopicPartition(self.source, 0)
        self.owner: Owner = cluster.member(self.source, self.group)
        self.opened: list[TransactionalProducerPort] = []

    def join(self) -> None:
        self.owner.join()

    def open(self) -> TransactionalProducerPort:
        client = self.cluster.client()
        assert isinstance(client, TransactionalClient)
        self.opened.append(client.transactional_producer(self.id, self.owner.consumer))
        return self.opened[-1]

    def begin(self, *values: bytes) -> TransactionalProducerPort:
        producer = self.open()
        producer.begin()
        for value in values:
            producer.send(OutgoingRecord(*self.target, b"k", value)).result(10)
        return producer

    def values(self) -> list[bytes | None]:
        """As a read_committed reader is given them, once no transaction is open."""
        reader = self.cluster.reader()
        ends = reader.end_offsets([self.target])
        reader.assign({self.target: None})
        found: list[bytes | None] = []

        def at_end() -> bool:
            found.extend(r.value for r in reader.poll(A_MOMENT).get(self.target, ()))
            return (reader.position(self.target) or 0) >= ends[self.target]

        wait_for("the end", at_end)
        return found

    def committed(self) -> Committed | None:
        return self.cluster.admin.committed(self.group, [self.place]).get(self.place)


@pytest.fixture
def bench(cluster: Cluster) -> Iterator[Bench]:
    bench = Bench(cluster)
    yield bench
    for producer in bench.opened:
        producer.close()


def test_records_and_offsets_are_committed_together(bench: Bench) -> None:
    bench.join()
    producer = bench.begin(b"1", b"2")
    assert bench.committed() is None
    producer.commit({bench.place: Committed(7, "kafetrain:3")})
    assert (bench.values(), bench.committed()) == ([b"1", b"2"], Committed(7, "kafetrain:3"))
    producer.begin()
    producer.send(OutgoingRecord(*bench.target, b"k", b"3")).result(10)
    producer.commit({bench.place: Committed(7, "kafetrain:3")})
    assert bench.values() == [b"1", b"2", b"3"]


def test_what_is_closed_in_between_never_counts(bench: Bench) -> None:
    bench.join()
    bench.begin(b"1").close()
    assert (bench.values(), bench.committed()) == ([], None)


def test_a_new_producer_of_the_id_ends_what_is_open_and_the_former_one_is_fenced(bench: Bench) -> None:
    bench.join()
    former, producer = bench.begin(b"1"), bench.begin(b"2")
    with pytest.raises(ClientError) as refused:
        former.commit({bench.place: Committed(7)})
    assert refused.value.retriable, "another producer may do it"
    assert not isinstance(refused.value, OutcomeUnknownError)
    producer.commit({bench.place: Committed(8)})
    assert (bench.values(), bench.committed()) == ([b"2"], Committed(8))


def test_a_consumer_that_has_not_joined_has_no_transactions(bench: Bench) -> None:
    """The broker would take them: without generation and member it asks nobody."""
    client = bench.cluster.client()
    assert isinstance(client, TransactionalClient)
    consumer = bench.cluster.close_later(client.group_consumer(bench.group, auto_offset_reset="earliest"))
    bench.opened.append(client.transactional_producer(bench.id, consumer))
    with pytest.raises(NotOwnerError):
        bench.opened[-1].begin()


def test_whom_the_group_has_given_up_is_refused(bench: Bench) -> None:
    bench.join()
    producer = bench.begin(b"1")
    bench.cluster.remove_members(bench.group)
    with pytest.raises(NotOwnerError):
        producer.commit({bench.place: Committed(7)})
    producer.close()
    assert (bench.values(), bench.committed()) == ([], None)


def test_whom_a_rebalance_has_passed_over_is_refused(bench: Bench) -> None:
    """As a frozen instance is: its heartbeats have stopped, and another one has joined."""
    bench.join()
    producer = bench.begin(b"1")
    bench.cluster.remove_members(bench.group)
    other = bench.cluster.member(bench.source, bench.group)
    other.poll_until("it owns something", lambda: other.owned)
    with pytest.raises(NotOwnerError):
        producer.commit({bench.place: Committed(7)})
    producer.close()
    assert (bench.values(), bench.committed()) == ([], None)


@pytest.mark.parametrize("is_asked", [True, False], ids=["the broker was asked", "the broker was not asked"])
def test_a_commit_without_an_answer_is_settled_by_the_next_producer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, is_asked: bool
) -> None:
    bench.join()
    producer = bench.begin(b"1")
    bench.cluster.lose_the_end_of_a_transaction(producer, monkeypatch, is_asked=is_asked)
    with pytest.raises(OutcomeUnknownError):
        producer.commit({bench.place: Committed(7)})
    monkeypatch.undo()
    bench.open()
    expected = ([b"1"], Committed(7)) if is_asked else ([], None)
    assert (bench.values(), bench.committed()) == expected


def test_a_record_that_is_too_large_spoils_its_transaction_and_no_other(bench: Bench) -> None:
    bench.target = TopicPartition(bench.cluster.topic({"max.message.bytes": "1000"}), 0)
    bench.join()
    producer = bench.begin(b"1")
    with pytest.raises(RecordTooLargeForClientError):
        producer.send(OutgoingRecord(*bench.target, b"k", os.urandom(5_000))).result(10)
    with pytest.raises(ClientError):
        producer.commit({bench.place: Committed(7)})
    producer.close()
    bench.begin(b"2").commit({bench.place: Committed(8)})
    assert (bench.values(), bench.committed()) == ([b"2"], Committed(8))
