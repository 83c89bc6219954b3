"""What a librdkafka consumer gave and its owner has not taken: order, pauses, moves, ends."""

from __future__ import annotations

import threading
import time
from typing import Any

from kafetrain.client.confluent_inbox import HELD_AT_MOST, Inbox, Item
from kafetrain.record import Record, TopicPartition
from tests.unit.records import record

ONE, TWO = TopicPartition("orders", 1), TopicPartition("orders", 2)
NEVER = threading.Event()


def records(place: TopicPartition, *offsets: int) -> list[Record]:
    return [record(*place, offset) for offset in offsets]


def item(place: TopicPartition, *offsets: int) -> Item:
    return Item(place, records(place, *offsets))


def taken(inbox: Inbox, most: int = 500) -> dict[TopicPartition, list[int]]:
    batches, failures = inbox.take(0.0, most, NEVER)
    assert failures == []
    return {place: [record.offset for record in batch] for place, batch in batches.items()}


def test_records_are_taken_in_order_and_no_more_than_asked_for() -> None:
    inbox = Inbox()
    inbox.put([item(ONE, 0, 1, 2), item(TWO, 7), item(ONE, 3, 5)])
    assert taken(inbox, 2) == {ONE: [0, 1]}
    assert inbox.position(ONE) == 2
    assert taken(inbox) == {ONE: [2, 3, 5], TWO: [7]}
    assert (inbox.position(ONE), inbox.position(TWO)) == (6, 8)


def test_a_position_passes_to_the_end_only_behind_the_records_before_it() -> None:
    inbox = Inbox()
    inbox.put([item(ONE, 0, 1), Item(ONE, (), end=5)])
    assert taken(inbox, 1) == {ONE: [0]}
    assert inbox.position(ONE) == 1
    assert taken(inbox) == {ONE: [1]}
    assert inbox.position(ONE) == 5


def test_a_paused_partition_is_kept_back_and_comes_first_when_it_is_resumed() -> None:
    inbox = Inbox()
    inbox.put([item(ONE, 0, 1), item(TWO, 0)])
    inbox.pause([ONE])
    inbox.put([item(ONE, 2), item(TWO, 1)])
    assert taken(inbox) == {TWO: [0, 1]}
    inbox.resume([ONE])
    inbox.put([item(ONE, 3)])
    assert taken(inbox) == {ONE: [0, 1, 2, 3]}


def test_only_a_paused_partition_that_goes_on_giving_is_to_be_paused_in_the_library() -> None:
    inbox = Inbox()
    inbox.pause([ONE])
    half = range(HELD_AT_MOST // 2)
    assert inbox.put([item(ONE, *half), item(TWO, *half)]) == []
    assert inbox.put([item(ONE, *half), item(TWO, *half)]) == [ONE]


def test_there_is_room_for_as_many_as_are_taken_at_once() -> None:
    inbox = Inbox()
    taken(inbox, 4)
    inbox.put([item(ONE, 0, 1, 2)])
    assert inbox.has_room
    inbox.put([item(ONE, 3)])
    assert not inbox.has_room
    taken(inbox, 1)
    assert not inbox.has_room
    taken(inbox, 4)
    assert inbox.has_room


def test_what_comes_from_before_a_move_is_dropped() -> None:
    inbox = Inbox()
    inbox.put([item(ONE, 0), item(TWO, 0)])
    inbox.move(ONE, 10)
    inbox.move(ONE, 20)
    inbox.put([item(ONE, 1)])
    inbox.moved({ONE: 10})
    inbox.put([item(ONE, 10), item(TWO, 1)])
    assert taken(inbox) == {TWO: [0, 1]}
    assert inbox.position(ONE) == 20
    inbox.moved([ONE])
    inbox.put([item(ONE, 20)])
    assert taken(inbox) == {ONE: [20]}


def test_a_failure_waits_until_the_records_before_it_are_taken() -> None:
    inbox, error = Inbox(), object()
    inbox.put([item(ONE, 0), Item(TWO, (), failure=error), item(ONE, 1)])
    assert taken(inbox) == {ONE: [0]}
    batches, failures = inbox.take(0.0, 500, NEVER)
    assert [(one.place, one.failure) for one in failures] == [(TWO, error)]
    assert batches == {}
    assert taken(inbox) == {ONE: [1]}


def test_what_is_forgotten_has_no_position_and_delivers_nothing() -> None:
    inbox = Inbox()
    inbox.put([item(ONE, 0), item(TWO, 0)])
    taken(inbox, 1)
    inbox.put([item(ONE, 1)])
    inbox.forget([ONE])
    assert inbox.position(ONE) is None
    assert taken(inbox) == {TWO: [0]}


def test_a_taker_that_waits_is_woken_by_a_record_and_by_the_end() -> None:
    inbox, over = Inbox(), threading.Event()
    results: list[dict[TopicPartition, Any]] = []

    def take() -> None:
        results.append(dict(inbox.take(time.monotonic() + 20, 500, over)[0]))

    for wake in (lambda: inbox.put([item(ONE, 0)]), over.set):
        thread = threading.Thread(target=take)
        thread.start()
        wake()
        with inbox.changed:
            inbox.changed.notify_all()
        thread.join(10)
        assert not thread.is_alive()
    assert [list(batches) for batches in results] == [[ONE], []]
