"""The producer port on kafka-python's `KafkaProducer`.

There are states in which the library's futures never end. So each record that is under way has a deadline here, and a
producer that has stopped working is replaced.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from typing import Any

from kafka import errors as kafka_errors
from loguru import logger

from kafetrain.client.kafka_python_errors import client_error
from kafetrain.client.kafka_python_workarounds import (
    abandon,
    is_stuck,
    keep_producer_usable_after_rejections,
    send_nothing_that_has_failed,
)
from kafetrain.client.open_records import OpenRecord, OpenRecords
from kafetrain.client.ports import ClientError, OutgoingRecord

__all__ = ["KafkaPythonProducer", "Open", "append"]

LATE = 1.05
"""Times the delivery timeout: when a record has still not ended by then, its producer is given up."""

ABANDON_TIMEOUT_S = 5.0
STUCK_WITHIN_S = 0.2


class Open(OpenRecord):
    """A record under way, as the library is to tell of it."""

    _owner: KafkaPythonProducer
    deadline: float
    producer: Any = None  # that it was handed to

    def acknowledged(self, metadata: Any) -> None:
        self._owner._acknowledged(self, metadata.offset)

    def failed(self, error: Exception) -> None:
        self._owner._failed(self, error)


def append(producer: Any, record: OutgoingRecord) -> Any:
    """Hand a record to the library's producer. Returns its future."""
    return producer.send(
        record.topic,
        key=record.key,
        value=record.value,
        headers=list(record.headers),
        partition=record.partition,
        timestamp_ms=record.timestamp_ms,
    )


class KafkaPythonProducer:
    """A `ProducerPort`.

    `send` waits, `max_block_ms` at most each: for room, where as much is under way as may be; for a topic's metadata,
    the first time that it is sent to or when it has grown; and for brokers, when a producer had to be replaced.
    A record that was under way in a producer that is replaced fails with a retriable error; it may have been
    appended. Never wait for a future in a callback: it runs on the thread that ends them.
    """

    def __init__(self, build: Callable[[Any], Any], *, delivery_timeout_s: float, max_block_s: float) -> None:
        self._build = build
        self._late_after_s = delivery_timeout_s * LATE
        self._max_block_s = max_block_s
        self._open: OpenRecords[Open] = OpenRecords()
        self._changed = self._open.changed  # guards the two below as well
        self._is_replacing = False
        self._producer: Any = self._built(None)  # None: to be built by the next send
        self._api_version = self._producer.config["api_version"]
        self._suspicion = threading.Event()
        self._watchdog = threading.Thread(target=self._watch, name="kafetrain-producer-watchdog", daemon=True)
        self._watch_every_s = min(1.0, delivery_timeout_s / 20)
        self._watchdog.start()

    def send(self, record: OutgoingRecord) -> Future[int]:
        now = time.monotonic()
        one = Open(record, self)
        one.deadline = now + self._late_after_s
        try:
            self._open.add(one, now + self._max_block_s)
        except ClientError as error:
            one.set_exception(error)
        else:
            self._hand_over(one, record)
        return one

    def flush(self, timeout: timedelta) -> None:
        self._open.flush(timeout)

    def close(self, timeout: timedelta) -> None:
        deadline = time.monotonic() + timeout.total_seconds()
        if not self._open.close(timeout):
            return
        self._suspicion.set()  # wakes the watchdog, which ends
        self._replace(self._producer, max(1.0, deadline - time.monotonic()))
        self._watchdog.join(ABANDON_TIMEOUT_S)

    def _hand_over(self, one: Open, record: OutgoingRecord) -> None:
        """Give the record to the library. Errors end its future."""
        try:
            one.producer = self._working_producer()
            sent = self._send(one.producer, record)
        except Exception as error:
            self._failed(one, error)
            return
        sent.add_callback(one.acknowledged)
        sent.add_errback(one.failed)

    def _send(self, producer: Any, record: OutgoingRecord) -> Any:
        deadline = time.monotonic() + self._max_block_s
        while True:
            try:
                return append(producer, record)
            except ValueError:
                # The topic may have grown: the library looks at it again only after metadata_max_age_ms.
                known = producer._metadata.partitions_for_topic(record.topic)
                if known is None or record.partition in known or record.partition < 0:
                    raise
                wait = deadline - time.monotonic()
                if wait <= 0:
                    raise ClientError(
                        f"sending to {record.topic}[{record.partition}]: the topic has {len(known)} partitions"
                    ) from None
                refreshed = threading.Event()
                producer._metadata.request_update().add_both(lambda _, done=refreshed: done.set())
                producer._sender.wakeup()
                refreshed.wait(wait)

    # Ends of records; most of this on the library's thread

    def _acknowledged(self, one: Open, offset: int) -> None:
        if self._open.remove(one):
            one.appended(offset)

    def _failed(self, one: Open, error: Exception) -> None:
        with self._changed:
            given_up = one.producer is not None and one.producer is not self._producer
        if not self._open.remove(one):
            return
        if given_up and isinstance(error, kafka_errors.IllegalStateError):
            one.set_exception(ClientError(f"{one}: {_GIVEN_UP}", retriable=True))
            return
        one.set_exception(client_error(error, str(one)))
        if isinstance(error, kafka_errors.KafkaTimeoutError):
            self._suspicion.set()

    # Replacing a producer that no longer works

    def _working_producer(self) -> Any:
        producer = self._producer
        if producer is not None and not self._is_replacing and not self._open.is_closed and not is_stuck(producer):
            return producer
        deadline = time.monotonic() + self._max_block_s
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._is_replacing, max(0.0, deadline - time.monotonic()))
                if self._is_replacing or self._open.is_closed:
                    raise ClientError("the producer is being replaced or closed", retriable=True)
                producer = self._producer
                if producer is None:
                    self._is_replacing = True  # by us; others wait
            if producer is None:
                return self._rebuild()
            if not is_stuck(producer):
                return producer
            self._replace(producer, ABANDON_TIMEOUT_S)

    def _rebuild(self) -> Any:
        producer = None
        try:
            producer = self._built(self._api_version)
        finally:
            with self._changed:
                self._is_replacing = False
                self._producer = producer
                too_late = self._open.is_closed
                self._changed.notify_all()
            if too_late and producer is not None:  # close() has not seen it
                abandon(producer, ABANDON_TIMEOUT_S)
        return producer

    def _built(self, api_version: Any) -> Any:
        producer = self._build(api_version)
        send_nothing_that_has_failed(producer)
        keep_producer_usable_after_rejections(producer)
        return producer

    def _replace(self, producer: Any, timeout_s: float) -> None:
        """Give `producer` up. When this returns it appends nothing any more, and its records have ended."""
        with self._changed:
            if producer is None or producer is not self._producer:
                return
            self._producer, self._is_replacing = None, True
        if not abandon(producer, timeout_s):
            logger.warning("a thread of a producer that was given up still runs")
        left = [one for one in self._open.left() if one.producer is producer]
        for one in left:
            if self._open.remove(one):
                one.set_exception(ClientError(f"{one}: {_GIVEN_UP}", retriable=True))
        with self._changed:
            self._is_replacing = False
            self._changed.notify_all()

    def _watch(self) -> None:
        while True:
            suspected = self._suspicion.wait(self._watch_every_s)
            self._suspicion.clear()
            with self._changed:
                if self._open.is_closed:
                    return
                producer = self._producer
                first = self._open.first()
            if producer is None:
                continue
            if (first is not None and time.monotonic() > first.deadline) or (suspected and _gets_stuck(producer)):
                logger.warning("a producer stopped working and is replaced")
                self._replace(producer, ABANDON_TIMEOUT_S)


_GIVEN_UP = "not acknowledged; its producer was given up, and whether it was appended is not known"


def _gets_stuck(producer: Any) -> bool:
    # It does so right after it has told of the expired records, which is when we are called.
    deadline = time.monotonic() + STUCK_WITHIN_S
    while not is_stuck(producer):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
