"""Retry records in a loop of one's own, where the log says what no version of ours has written."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kafetrain import Outcome
from kafetrain.core.entry import Entry, State
from kafetrain.core.headers import retry_headers
from kafetrain.record import MessageId, TopicPartition
from kafetrain.tracker.own_loops import OwnRetryLoop
from kafetrain.tracker.state import Side
from tests.unit.tracker.conftest import Bench

ID = MessageId("billing", "orders", 0, 4)


@pytest.fixture
def loop(bench: Bench) -> OwnRetryLoop:
    bench.state.claim(Side.RETRY, bench.topic, [0])
    bench.state.retry_claims[TopicPartition("retry-orders", 0)].ready = True
    bench.table.next_offset = 50
    return OwnRetryLoop(
        bench.state, bench.writes, bench.sequencer, bench.settings, bench.clock, lambda place: bench.table.next_offset
    )


def retry_record(entry: Entry) -> Any:
    headers = retry_headers(ID, (), timestamp_ms=77, entry=entry, max_retries=3, lock_offset=33)
    return SimpleNamespace(
        topic="retry-orders", partition=0, offset=9, key=b"k", value=b"v", headers=headers, timestamp=88
    )


def test_a_dead_record_has_ended_also_where_its_lock_names_no_dead_letter(bench: Bench, loop: OwnRetryLoop) -> None:
    """Appended again, it would come back for ever."""
    entry = Entry(b"k", State.DEAD, attempt=4, log_offset=33)
    bench.table.source(0).put(ID.offset, entry)
    done = loop.redirect(retry_record(entry), bench.topic, None)
    assert (done.done(), bench.producer.sent) == (True, [])
    assert done.result(0) is Outcome.ALREADY_ENDED


def test_a_pending_record_is_pending_also_where_its_lock_names_a_dead_letter(bench: Bench, loop: OwnRetryLoop) -> None:
    entry = Entry(b"k", attempt=1, dead_at=(0, 7), log_offset=33)
    bench.table.source(0).put(ID.offset, entry)
    assert not loop.may_not_run(retry_record(entry), bench.topic)
