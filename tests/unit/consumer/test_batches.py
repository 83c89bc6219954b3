"""Batches and runs: what is collected of them, and when their records are let go."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from kafetrain.clock import SystemClock
from kafetrain.consumer.batches import Batch, Run
from kafetrain.consumer.key_order import SourcePartition
from kafetrain.record import TopicPartition
from kafetrain.threads import Workers
from tests.waiting import wait_for


def records(*offsets: int) -> list[Any]:
    return [SimpleNamespace(offset=offset, key=b"k%d" % offset, value=b"value") for offset in offsets]


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers(1, "test-worker")
    workers.start()
    yield workers
    workers.request_stop()
    assert workers.join(10.0)


def test_a_run_is_collected_by_offsets_gaps_included() -> None:
    run = Run(Batch(records(3, 4, 7, 9)), 0)
    assert run.collect() is None
    run.done = 2
    assert run.collect() == (3, 4)
    assert run.collect() is None
    run.done = 4
    assert run.collect() == (7, 9)


def test_a_batch_that_is_let_go_keeps_its_offsets_and_holds_no_bytes() -> None:
    batch = Batch(records(3, 4))
    assert batch.size_bytes == 2 * len(b"k3value")
    batch.let_go()
    assert (batch.size_bytes, list(batch.offsets)) == (0, [3, 4])


def test_what_ran_holds_no_bytes_though_a_record_before_it_is_not_complete(workers: Workers) -> None:
    waits: Future[None] = Future()
    fatal: list[BaseException] = []
    part = SourcePartition(
        TopicPartition("t", 0), 0, "", lambda record: waits if record.offset == 0 else None, workers, SystemClock(),
        fatal.append, whole_batches=True,
    )  # fmt: skip
    part.dispatch(records(0, 1))
    part.dispatch(records(2, 3))
    wait_for("the second batch was let go", lambda: part.open_bytes == 2 * len(b"k0value"))
    part.collect()
    assert (part.ledger.next_offset, part.ledger.open_count) == (0, 1)
    waits.set_result(None)
    wait_for("all are complete", lambda: part.to_commit() is not None)
    assert (part.ledger.next_offset, part.open_bytes, fatal) == (4, 0, [])
