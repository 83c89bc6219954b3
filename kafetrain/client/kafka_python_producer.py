"""The producer port on kafka-python's `KafkaProducer`.

The library's producer has no bound on memory, and there are states in which its futures never end. So this keeps
account of every record that is under way, lets no more in than fit, and replaces a producer that has stopped working.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
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
from kafetrain.client.ports import ClientError, OutgoingRecord, size_of
from kafetrain.futures import LightFuture

__all__ = ["KafkaPythonProducer", "Open", "append"]

MAX_OPEN_RECORDS = 20_000
MAX_OPEN_BYTES = 64 * 1024 * 1024
"""Of keys, values and headers. A larger record goes when it is alone."""

LATE = 1.05
"""Times the delivery timeout: when a record has still not ended by then, its producer is given up."""

ABANDON_TIMEOUT_S = 5.0
STUCK_WITHIN_S = 0.2


class Open(LightFuture[int]):
    """A record under way: the future of its offset."""

    def __init__(self, record: OutgoingRecord, deadline: float, owner: KafkaPythonProducer) -> None:
        super().__init__()
        self.topic, self.partition, self.deadline, self._owner = record.topic, record.partition, deadline, owner
        self.size_bytes = size_of(record)
        self.number = 0
        self.producer: Any = None  # that it was handed to

    def __str__(self) -> str:
        return f"sending to {self.topic}[{self.partition}]"

    # For the library

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
        # Guards what follows. Never held while the library is called: its thread wants it, to end records.
        self._mutex = threading.Lock()
        self._changed = threading.Condition(self._mutex)
        self._open: OrderedDict[int, Open] = OrderedDict()  # in the order of the calls
        self._open_bytes = 0
        self._last_number = 0
        self._is_closed = False
        self._is_replacing = False
        self._producer: Any = self._built(None)  # None: to be built by the next send
        self._api_version = self._producer.config["api_version"]
        self._suspicion = threading.Event()
        self._watchdog = threading.Thread(target=self._watch, name="kafetrain-producer-watchdog", daemon=True)
        self._watch_every_s = min(1.0, delivery_timeout_s / 20)
        self._watchdog.start()

    def send(self, record: OutgoingRecord) -> Future[int]:
        one = Open(record, time.monotonic() + self._late_after_s, self)
        with self._mutex:
            has_room = self._fits(one.size_bytes) or self._wait_for_room(one.size_bytes)
            refusal = self._refusal(one, has_room)
            if refusal is None:
                one.number = self._last_number = self._last_number + 1
                self._open[one.number] = one
                self._open_bytes += one.size_bytes
        if refusal is None:
            self._hand_over(one, record)
        else:
            one.set_exception(refusal)
        return one

    def flush(self, timeout: timedelta) -> None:
        with self._changed:
            last = self._last_number
            self._changed.wait_for(lambda: self._first_open() > last, timeout.total_seconds())

    def close(self, timeout: timedelta) -> None:
        deadline = time.monotonic() + timeout.total_seconds()
        with self._changed:
            if self._is_closed:
                return
            self._is_closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._open, timeout.total_seconds())
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
        if not self._ends(one):
            return
        if offset >= 0:
            one.set_result(offset)
        else:  # a repeated batch whose first copy the broker knows, but no longer where it is
            one.set_exception(ClientError(f"{one}: appended, but nobody tells at which offset", retriable=True))

    def _failed(self, one: Open, error: Exception) -> None:
        with self._changed:
            given_up = one.producer is not None and one.producer is not self._producer
        if not self._ends(one):
            return
        if given_up and isinstance(error, kafka_errors.IllegalStateError):
            one.set_exception(ClientError(f"{one}: {_GIVEN_UP}", retriable=True))
            return
        one.set_exception(client_error(error, str(one)))
        if isinstance(error, kafka_errors.KafkaTimeoutError):
            self._suspicion.set()

    def _ends(self, one: Open) -> bool:
        """Take the record out of the account; False: it has ended before."""
        with self._mutex:
            if self._open.pop(one.number, None) is None:
                return False
            self._open_bytes -= one.size_bytes
            self._changed.notify_all()
        return True

    def _wait_for_room(self, size: int) -> bool:
        """With `_changed` held."""
        return self._changed.wait_for(lambda: self._is_closed or self._fits(size), self._max_block_s)

    def _refusal(self, one: Open, has_room: bool) -> ClientError | None:
        if self._is_closed:
            return ClientError(f"{one}: the producer is closed")
        if not has_room:
            why = f"{len(self._open)} records of {self._open_bytes} bytes are not acknowledged yet"
            return ClientError(f"{one}: {why}", retriable=True)
        return None

    def _fits(self, size: int) -> bool:
        if not self._open:
            return True
        return len(self._open) < MAX_OPEN_RECORDS and self._open_bytes + size <= MAX_OPEN_BYTES

    def _first_open(self) -> float:
        return next(iter(self._open), float("inf"))

    # Replacing a producer that no longer works

    def _working_producer(self) -> Any:
        producer = self._producer
        if producer is not None and not self._is_replacing and not self._is_closed and not is_stuck(producer):
            return producer
        deadline = time.monotonic() + self._max_block_s
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._is_replacing, max(0.0, deadline - time.monotonic()))
                if self._is_replacing or self._is_closed:
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
                too_late = self._is_closed
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
        with self._changed:
            left = [one for one in self._open.values() if one.producer is producer]
        for one in left:
            if self._ends(one):
                one.set_exception(ClientError(f"{one}: {_GIVEN_UP}", retriable=True))
        with self._changed:
            self._is_replacing = False
            self._changed.notify_all()

    def _watch(self) -> None:
        while True:
            suspected = self._suspicion.wait(self._watch_every_s)
            self._suspicion.clear()
            with self._changed:
                if self._is_closed:
                    return
                producer = self._producer
                first = next(iter(self._open.values()), None)
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
