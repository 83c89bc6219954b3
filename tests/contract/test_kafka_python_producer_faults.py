"""Faults of kafka-python's producer that no broker shows on demand, so on a library that is played."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import errors as kafka_errors
from kafka.future import Future as KafkaFuture

from kafetrain.client import open_records
from kafetrain.client.kafka_python_producer import KafkaPythonProducer
from kafetrain.client.ports import ClientError, OutgoingRecord
from tests.waiting import wait_for


class PlayedProducer:
    """As much of `KafkaProducer` as the port touches. Its records end when the test says so."""

    def __init__(self) -> None:
        self.sent: list[KafkaFuture] = []
        self.is_ready_without_id = False
        self.has_ended = False
        self.config = {"api_version": (4, 1)}
        self._transaction_manager = SimpleNamespace(
            has_fatal_error=lambda: self.is_ready_without_id,
            has_producer_id=lambda: True,
            classify_batch_error=None,
            _current_state=None,
        )
        self._sender = self

    def send(self, topic: str, **record: Any) -> KafkaFuture:
        if self.has_ended:
            raise kafka_errors.IllegalStateError("closed")
        self.sent.append(KafkaFuture())
        return self.sent[-1]

    def acknowledge(self, number: int, offset: int) -> None:
        self.sent[number].success(SimpleNamespace(offset=offset))

    # As its own sender
    def force_close(self) -> None:
        self.has_ended = True
        for future in self.sent:
            if not future.is_done:
                future.failure(kafka_errors.IllegalStateError("Producer is closed forcefully."))

    def _create_produce_requests(self, batches_by_node: object) -> None: ...

    def join(self, timeout: float) -> None: ...

    def is_alive(self) -> bool:
        return False

    def _unregister_cleanup(self) -> None: ...


@contextmanager
def played(delivery_timeout_s: float = 30.0) -> Iterator[tuple[KafkaPythonProducer, list[PlayedProducer]]]:
    built: list[PlayedProducer] = []

    def build(api_version: Any) -> PlayedProducer:
        built.append(PlayedProducer())
        return built[-1]

    producer = KafkaPythonProducer(build, delivery_timeout_s=delivery_timeout_s, max_block_s=5)
    try:
        yield producer, built
    finally:
        with suppress(ClientError):
            producer.close(timedelta(0))


RECORD = OutgoingRecord("t", 0, b"k", b"v")


def test_a_record_that_never_ends_is_ended_and_its_producer_replaced() -> None:
    with played(delivery_timeout_s=0.1) as (producer, built):
        first, second = producer.send(RECORD), producer.send(RECORD)
        for future in (first, second):
            error = future.exception(5)
            assert isinstance(error, ClientError)
            assert error.retriable
        assert built[0].has_ended
        third = producer.send(RECORD)
        built[1].acknowledge(0, 7)
        assert third.result(5) == 7


def test_a_producer_that_is_stuck_is_replaced_before_the_next_record() -> None:
    with played() as (producer, built):
        before = producer.send(RECORD)
        built[0].is_ready_without_id = True
        after = producer.send(RECORD)
        assert before.exception(0) is not None
        built[1].acknowledge(0, 0)
        assert after.result(5) == 0


def test_flushing_waits_for_what_was_sent_before_and_not_for_more() -> None:
    with played() as (producer, built):
        for _ in range(3):
            producer.send(RECORD)
        flushed = threading.Thread(target=producer.flush, args=(timedelta(seconds=20),))
        flushed.start()
        producer.send(RECORD)
        for number in (2, 0):
            built[0].acknowledge(number, number)
        assert flushed.is_alive()
        built[0].acknowledge(1, 1)
        wait_for("flushed", lambda: not flushed.is_alive())


def test_an_acknowledgement_without_an_offset_is_no_success() -> None:
    with played() as (producer, built):
        sent = producer.send(RECORD)
        built[0].acknowledge(0, -1)
        error = sent.exception(5)
        assert isinstance(error, ClientError)
        assert error.retriable


def test_a_record_of_any_size_goes_when_it_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_records, "MAX_BYTES", 10)
    with played() as (producer, built):
        sent = producer.send(OutgoingRecord("t", 0, b"k", bytes(100)))
        built[0].acknowledge(0, 0)
        assert sent.result(5) == 0
        big = threading.Thread(target=lambda: [producer.send(OutgoingRecord("t", 0, b"k", bytes(6))) for _ in "12"])
        big.start()
        wait_for("the first of two is sent", lambda: len(built[0].sent) == 2)
        big.join(0.05)
        assert len(built[0].sent) == 2, "the second waits for room"
        built[0].acknowledge(1, 1)
        big.join(5)
        assert len(built[0].sent) == 3
