"""The transactional producer port on kafka-python's `KafkaProducer`.

The library's own calls wait without a bound, and offsets of an aborted transaction leak into the next one. So its
transaction manager is asked directly, with a deadline, and nothing is done with a producer that has failed once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

from kafka import TopicPartition as KafkaTopicPartition
from kafka import errors as kafka_errors
from kafka.structs import OffsetAndMetadata
from loguru import logger

from kafetrain.client.kafka_python_errors import AUTH_ERRORS, client_error
from kafetrain.client.kafka_python_producer import append
from kafetrain.client.kafka_python_workarounds import REJECTIONS, abandon
from kafetrain.client.open_records import OpenRecord, OpenRecords
from kafetrain.client.ports import ClientError, Committed, NotOwnerError, OutgoingRecord
from kafetrain.client.transactions import Transactions
from kafetrain.record import TopicPartition

__all__ = ["KafkaPythonTransactions"]

ABORT_TIMEOUT_MS = 2_000
ABANDON_TIMEOUT_S = 5.0

_FINAL = (*REJECTIONS, *AUTH_ERRORS, kafka_errors.UnsupportedVersionError, kafka_errors.KafkaConfigurationError)
"""Another producer would meet the same."""


class KafkaPythonTransactions(Transactions):
    """A `TransactionalProducerPort`. Building it settles what a former producer of its id has left open."""

    def __init__(self, producer: Any, membership: Callable[[], Any], *, timeout_s: float) -> None:
        super().__init__(producer, membership, _error)
        self._manager, self._timeout_s = producer._transaction_manager, timeout_s
        self._open: OpenRecords[OpenRecord] = OpenRecords()
        try:
            producer.init_transactions()  # bounded by max_block_ms
        except Exception as error:
            abandon(producer, ABANDON_TIMEOUT_S)
            raise _error(error, f"beginning transactions of {producer.config['transactional_id']}") from error

    def send(self, record: OutgoingRecord) -> Future[int]:
        one = OpenRecord(record, self)
        try:
            self._open.add(one, time.monotonic() + self._timeout_s)
            sent = append(self._producer, record)
        except Exception as error:
            self._failed(one, error)
            return one
        sent.add_callback(partial(self._acknowledged, one))
        sent.add_errback(partial(self._failed, one))
        return one

    def _send_offsets(self, next_offsets: Mapping[TopicPartition, Committed]) -> None:
        # The leader epoch stays -1: with one, brokers refuse offsets of a leader they no longer know.
        offsets = {
            KafkaTopicPartition(*place): OffsetAndMetadata(committed.next_offset, committed.metadata, -1)
            for place, committed in next_offsets.items()
        }
        self._wait(self._manager.send_offsets_to_transaction(offsets, self._member))

    def _end(self) -> None:
        self._wait(self._manager.begin_commit())

    def _abort(self) -> None:
        if not self._manager.has_fatal_error():
            ending = self._manager.begin_abort()
            self._producer._sender.wakeup()
            ending.wait(timeout_ms=ABORT_TIMEOUT_MS)

    def _free(self) -> None:
        if not abandon(self._producer, ABANDON_TIMEOUT_S):
            logger.warning("a thread of a producer that was given up still runs")

    def _wait(self, result: Any) -> None:
        self._producer._sender.wakeup()
        if not result.wait(timeout_ms=self._timeout_s * 1000):
            raise kafka_errors.KafkaTimeoutError(f"no answer within {self._timeout_s:g} s")

    def _acknowledged(self, one: OpenRecord, metadata: Any) -> None:
        self._open.remove(one)
        one.appended(metadata.offset)

    def _failed(self, one: OpenRecord, error: Exception) -> None:
        self._open.remove(one)
        one.set_exception(_error(error, str(one)))


def _error(error: Exception, doing: str) -> ClientError:
    """The port's error. What only this producer meets, such as being fenced, is retriable: another one may succeed."""
    known = client_error(error, doing)
    if isinstance(known, NotOwnerError) or isinstance(error, _FINAL):
        return known
    return ClientError(str(known), retriable=True)
