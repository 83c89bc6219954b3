"""Ownership: a partition is handed over when nothing of it is under way, and committed as far as it is complete."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pytest

from kafetrain.client.ports import ClientError, Committed, NotOwnerError
from kafetrain.ownership import Ownership, by_topic
from kafetrain.record import TopicPartition

A, B = TopicPartition("t", 0), TopicPartition("t", 1)


class Partition:
    def __init__(self, place: TopicPartition) -> None:
        self.place, self.committed, self.position = place, 0, 0
        self.idle, self.writing, self.left = True, False, False

    def leave(self) -> None:
        self.left = True

    def to_commit(self) -> Committed | None:
        return Committed(self.position) if self.position > self.committed else None

    def position_with(self, completed: Collection[int]) -> Committed:
        return Committed(max(self.position, self.committed, *(offset + 1 for offset in completed)))


class Consumer:
    def __init__(self) -> None:
        self.resumed: list[TopicPartition] = []
        self.paused: list[TopicPartition] = []
        self.sought: dict[TopicPartition, int] = {}
        self.commits: list[dict[TopicPartition, int]] = []
        self.refuses: ClientError | None = None
        self.closed = False

    def resume(self, places: Collection[TopicPartition]) -> None:
        self.resumed += places

    def pause(self, places: Collection[TopicPartition]) -> None:
        self.paused += places

    def seek(self, place: TopicPartition, offset: int) -> None:
        self.sought[place] = offset

    def commit(self, offsets: Mapping[TopicPartition, Committed]) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.commits.append({place: offset.next_offset for place, offset in offsets.items()})

    def close(self) -> None:
        self.closed = True


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def now_ms(self) -> int:
        return int(self.now * 1000)


class Bench:
    def __init__(self) -> None:
        self.consumer, self.clock = Consumer(), Clock()
        self.claimed: list[TopicPartition] = []
        self.released: list[TopicPartition] = []
        self.disowned: list[TopicPartition] = []
        consumer: Any = self.consumer
        self.owned = Ownership[Partition](
            consumer,
            self.clock,
            10.0,
            self.claimed.extend,
            lambda places, gone: self.released.extend(places),
            self.disowned.extend,
        )

    def own(self, place: TopicPartition) -> Partition:
        self.owned.assigned(frozenset({place}))
        self.owned.take_events()
        partition = Partition(place)
        self.owned.begin(partition)
        return partition

    def revoke(self, *places: TopicPartition) -> Any:
        ask = self.owned.revoking(frozenset(places))
        self.owned.take_events()
        self.owned.answer_handovers()
        return ask


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_an_assigned_partition_is_claimed_and_delivers_only_once_it_has_begun(bench: Bench) -> None:
    bench.owned.assigned(frozenset({A}))
    assert bench.claimed == []  # the client's thread only leaves a note
    bench.owned.take_events()
    assert (bench.claimed, bench.owned.awaited, bench.consumer.resumed) == ([A], {A}, [])
    bench.owned.begin(Partition(A))
    assert (bench.owned.awaited, bench.consumer.resumed) == (set(), [A])


def test_a_partition_that_is_wanted_back_before_it_has_begun_never_begins(bench: Bench) -> None:
    """What it would deliver between the hand-over and its answer would run at the next owner's time."""
    bench.owned.assigned(frozenset({A}))
    bench.owned.take_events()
    ask = bench.owned.revoking(frozenset({A}))
    bench.owned.take_events()
    assert bench.owned.awaited == set()
    bench.owned.answer_handovers()
    assert (ask(), bench.released) == ({}, [A])


def test_an_idle_partition_is_handed_over_at_once_with_what_to_commit(bench: Bench) -> None:
    partition = bench.own(A)
    partition.position = 7
    ask = bench.revoke(A)
    assert ask() == {A: Committed(7)}
    assert partition.left
    assert bench.released == [A]
    assert list(bench.owned) == []


def test_a_running_handler_is_waited_for(bench: Bench) -> None:
    partition = bench.own(A)
    partition.idle = False
    ask = bench.revoke(A)
    assert ask() is None
    assert bench.released == []
    partition.idle, partition.position = True, 3
    bench.owned.answer_handovers()
    assert ask() == {A: Committed(3)}


def test_a_handler_that_takes_too_long_is_abandoned_and_what_it_does_later_not_committed(bench: Bench) -> None:
    partition = bench.own(A)
    partition.idle, partition.position = False, 3
    ask = bench.revoke(A)
    bench.clock.now += 10.0
    bench.owned.answer_handovers()
    partition.position = 9
    assert ask() == {A: Committed(3)}


def test_no_partition_goes_while_a_write_of_it_is_in_flight(bench: Bench) -> None:
    """It could land after the next owner has read the log, and undo what that one does."""
    partition = bench.own(A)
    partition.idle, partition.writing = False, True
    ask = bench.revoke(A)
    bench.clock.now += 10.0
    bench.owned.answer_handovers()
    assert ask() is None
    assert bench.released == [A]  # nothing more may be written
    partition.writing = False
    bench.owned.answer_handovers()
    assert ask() == {}


def test_a_lost_partition_commits_nothing(bench: Bench) -> None:
    partition = bench.own(A)
    partition.position = 7
    bench.owned.lost(frozenset({A}))
    bench.owned.take_events()
    bench.owned.commit()
    assert partition.left
    assert bench.released == [A]
    assert bench.consumer.commits == []


def test_what_was_lost_and_has_come_back_since_the_last_step_commits_nothing(bench: Bench) -> None:
    """A broker would take it: another owner may have gone on from there, and its offset would be taken back."""
    bench.own(A).position, bench.own(B).position = 7, 2
    bench.owned.lost(frozenset({A}))
    bench.owned.assigned(frozenset({A}))
    bench.owned.commit()
    assert bench.consumer.commits == [{B: 2}]
    assert bench.owned.awaited == {A}


def test_what_is_lost_and_comes_back_while_closing_commits_nothing(bench: Bench) -> None:
    bench.own(A).position = 7
    running = bench.own(B)
    running.idle = False

    def work_on() -> None:
        running.idle, running.position = True, 2
        bench.owned.lost(frozenset({A}))
        bench.owned.assigned(frozenset({A}))

    bench.owned.close(work_on)
    assert bench.consumer.commits == [{B: 2}]


def test_what_came_too_soon_is_read_again_from_there(bench: Bench) -> None:
    bench.owned.assigned(frozenset({A}))
    bench.owned.take_events()
    bench.owned.put_back(A, 5)
    bench.owned.put_back(B, 5)  # given up: its next owner reads it
    assert (bench.consumer.paused, bench.consumer.sought) == ([A], {A: 5})


def test_a_partition_that_is_lost_and_comes_back_during_a_handover_is_kept(bench: Bench) -> None:
    partition = bench.own(A)
    partition.idle = False
    ask = bench.revoke(A)
    bench.owned.lost(frozenset({A}))
    bench.owned.assigned(frozenset({A}))
    bench.owned.take_events()
    bench.owned.answer_handovers()
    assert ask() == {}
    assert bench.owned.awaited == {A}
    assert bench.claimed == [A, A]


def test_commits_cover_what_has_moved_once_a_second(bench: Bench) -> None:
    a, b = bench.own(A), bench.own(B)
    a.position = 5
    bench.owned.commit_if_due()
    b.position = 2
    bench.owned.commit_if_due()
    assert bench.consumer.commits == [{A: 5}]
    bench.clock.now += 1.0
    bench.owned.commit_if_due()
    assert bench.consumer.commits == [{A: 5}, {B: 2}]


def test_a_commit_lets_what_is_pressing_go_first_and_not_for_ever(bench: Bench) -> None:
    a = bench.own(A)
    bench.owned.commit_if_due()
    a.position = 5
    bench.clock.now += 1.9
    bench.owned.commit_if_due(pressed=True)
    assert bench.consumer.commits == []
    bench.clock.now += 0.1
    bench.owned.commit_if_due(pressed=True)
    assert bench.consumer.commits == [{A: 5}]


@pytest.mark.parametrize("error", [NotOwnerError("rebalancing"), ClientError("away", retriable=True)])
def test_a_refused_commit_is_tried_again(bench: Bench, error: ClientError) -> None:
    bench.own(A).position = 5
    bench.consumer.refuses = error
    bench.owned.commit()
    bench.consumer.refuses = None
    bench.owned.commit()
    assert bench.consumer.commits == [{A: 5}]


def test_a_commit_that_can_never_succeed_is_raised(bench: Bench) -> None:
    bench.own(A).position = 5
    bench.consumer.refuses = ClientError("not authorized")
    with pytest.raises(ClientError, match="not authorized"):
        bench.owned.commit()


def test_closing_works_on_until_idle_then_commits_and_answers_at_once(bench: Bench) -> None:
    partition = bench.own(A)
    partition.idle = False

    def work_on() -> None:
        partition.idle, partition.position = True, 4

    bench.owned.close(work_on)
    assert bench.consumer.commits == [{A: 4}]
    assert bench.consumer.closed
    assert bench.released == [A]
    assert bench.owned.revoking(frozenset({A}))() == {}


def test_closing_is_bounded(bench: Bench) -> None:
    bench.own(A).idle = False

    def work_on() -> None:
        bench.clock.now += 4.0

    bench.owned.close(work_on)
    assert bench.clock.now == 112.0
    assert bench.consumer.closed


def test_a_commit_that_a_rebalance_refuses_on_closing_is_tried_again(bench: Bench) -> None:
    """What stays uncommitted would run once more elsewhere. Of two that leave, one meets the other's rebalance."""
    bench.own(A).position, bench.own(B).position = 3, 4
    bench.consumer.refuses = NotOwnerError("a rebalance is under way")

    def work_on() -> None:
        bench.consumer.refuses = None
        bench.owned.lost(frozenset({B}))

    bench.owned.close(work_on)
    assert bench.consumer.commits == [{A: 3}], "B is another's now"


def test_a_commit_that_is_refused_for_good_does_not_keep_closing_from_its_end(bench: Bench) -> None:
    bench.own(A).position = 3
    bench.consumer.refuses = NotOwnerError("a rebalance is under way")

    def work_on() -> None:
        bench.clock.now += 2.0

    bench.owned.close(work_on)
    assert bench.clock.now == 106.0
    assert bench.consumer.closed


def test_partition_numbers_by_topic() -> None:
    assert by_topic([A, TopicPartition("u", 4), B]) == {"t": [0, 1], "u": [4]}


# Transactions


def test_a_lost_partition_is_disowned_at_once_and_not_with_the_next_step(bench: Bench) -> None:
    bench.own(A)
    bench.owned.lost(frozenset({A}))
    assert bench.disowned == [A]
    assert bench.released == []


def test_the_loop_commits_no_partition_that_a_transaction_is_committing(bench: Bench) -> None:
    """Of two commits the later one counts: the loop's would take back what the transaction has moved on."""
    first, second = bench.own(A), bench.own(B)
    first.position = second.position = 5
    with bench.owned.carrying({A: [7]}) as offsets:
        assert offsets == {A: Committed(8)}
        bench.owned.commit()
        assert bench.consumer.commits == [{B: 5}]
    assert first.committed == 8
    bench.owned.commit()
    assert bench.consumer.commits == [{B: 5}], "nothing below what the transaction has committed"


def test_an_aborted_transaction_has_committed_nothing(bench: Bench) -> None:
    partition = bench.own(A)
    partition.position = 5
    with pytest.raises(ClientError), bench.owned.carrying({A: [7]}):
        raise ClientError("refused")
    assert partition.committed == 0
    bench.owned.commit()
    assert bench.consumer.commits == [{A: 5}]


def test_a_transaction_for_a_partition_that_is_gone_is_refused(bench: Bench) -> None:
    with pytest.raises(NotOwnerError), bench.owned.carrying({A: [7]}):
        raise AssertionError("begun")


def test_a_hand_over_takes_nothing_back_that_a_transaction_has_committed(bench: Bench) -> None:
    partition = bench.own(A)
    partition.position, partition.idle, partition.writing = 5, False, True
    ask = bench.revoke(A)
    bench.clock.now += 11
    bench.owned.answer_handovers()
    assert ask() is None, "its handler has had its time, its write has not ended"
    partition.committed, partition.writing = 8, False
    bench.owned.answer_handovers()
    assert ask() == {}
