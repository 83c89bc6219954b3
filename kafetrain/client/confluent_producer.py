"""The producer port on confluent-kafka's `Producer`.

librdkafka keeps the order, the deadline and the idempotence. Here is what it does otherwise than the port says: it
would create a missing topic by asking for it, and a producer that has met a fatal error takes nothing any more, so that
another one takes its place.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from loguru import logger

from kafetrain.client.confluent_errors import client_error, error_of
from kafetrain.client.open_records import OpenRecord, OpenRecords
from kafetrain.client.ports import AdminPort, ClientError, OutgoingRecord

__all__ = ["ConfluentProducer"]

POLL_S = 0.1
ASK_AGAIN_S = 0.05
REPLACE_AFTER_S = 1.0
PURGE_TIMEOUT_S = 5.0


class _Open(OpenRecord):
    """A record under way, as the library is to tell of it."""

    _owner: ConfluentProducer

    def __call__(self, error: Any, message: Any) -> None:
        self._owner._delivered(self, error, message)


class ConfluentProducer:
    """A `ProducerPort`. `build` connects a library's producer.

    `send` waits, `max_block_s` at most: for room, where as much is open as may be; and for the topic, the first time
    that it is sent to or when it has grown. Never wait for a future in a callback: the thread that ends them runs it.
    """

    def __init__(self, build: Callable[[], Any], build_admin: Callable[[], AdminPort], *, max_block_s: float) -> None:
        self._build, self._build_admin, self._max_block_s = build, build_admin, max_block_s
        self._producer = build()
        self._open: OpenRecords[_Open] = OpenRecords()
        self._changed = self._open.changed  # guards the next as well
        self._is_broken = False
        self._looking_up = threading.Lock()  # guards the two below; `_changed` may be taken inside
        self._admin: AdminPort | None = None
        self._partitions: dict[str, int] = {}
        self._thread = threading.Thread(target=self._run, name="kafetrain-producer", daemon=True)
        self._thread.start()

    def send(self, record: OutgoingRecord) -> Future[int]:
        one, deadline = _Open(record, self), time.monotonic() + self._max_block_s
        try:
            self._check(one, record, deadline)
            self._open.add(one, deadline)
        except ClientError as error:
            one.set_exception(error)
            return one
        try:
            self._produce(record, one, deadline)
        except Exception as error:
            self._broken_by(error)
            self._end(one, error)
        return one

    def flush(self, timeout: timedelta) -> None:
        self._open.flush(timeout)

    def close(self, timeout: timedelta) -> None:
        if not self._open.close(timeout):
            return
        self._thread.join(POLL_S * 2)
        _purge(self._producer)
        for one in self._open.left():
            self._end(one, ClientError("its producer was closed; it may have been appended", retriable=True))
        with self._looking_up:
            if self._admin is not None:
                self._admin.close()

    # On the way out

    def _check(self, one: _Open, record: OutgoingRecord, deadline: float) -> None:
        if record.key is None and record.value is None:
            raise ClientError(f"{one}: a record needs a key or a value")
        if not 0 <= one.partition < self._partitions.get(one.topic, 0):
            self._look_up(one, deadline)

    def _look_up(self, one: _Open, deadline: float) -> None:
        """By the admin client, which creates no topic."""
        with self._looking_up:
            while not 0 <= one.partition < self._partitions.get(one.topic, 0):
                if self._open.is_closed:
                    raise ClientError(f"{one}: the producer is closed")
                if self._admin is None:
                    self._admin = self._build_admin()
                found = self._admin.describe_topics([one.topic]).get(one.topic)
                if found is not None:
                    self._partitions[one.topic] = found.partitions
                    if 0 <= one.partition < found.partitions:
                        return
                if one.partition < 0 or time.monotonic() > deadline:
                    why = "it does not exist" if found is None else f"the topic has {found.partitions} partitions"
                    raise ClientError(f"{one}: {why}")
                time.sleep(ASK_AGAIN_S)

    def _produce(self, record: OutgoingRecord, on_delivery: Callable[[Any, Any], None], deadline: float) -> None:
        while True:
            producer = self._producer
            try:
                producer.produce(
                    record.topic,
                    record.value,
                    record.key,
                    record.partition,
                    on_delivery=on_delivery,
                    timestamp=record.timestamp_ms or 0,
                    headers=list(record.headers),
                )
                return
            except BufferError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(ASK_AGAIN_S)
            except KafkaException as error:
                # The topic has grown, and the library has not looked at it since.
                if error_of(error).code() != KafkaError._UNKNOWN_PARTITION or time.monotonic() > deadline:
                    raise
                producer.list_topics(record.topic, self._max_block_s)

    # Ends of records, on the thread

    def _run(self) -> None:
        while True:
            try:
                self._producer.poll(POLL_S)
            except KafkaException as error:  # a fatal one is raised where callbacks are served
                self._broken_by(error)
            with self._changed:
                if self._open.is_closed and self._open.first() is None:
                    return
                is_broken = self._is_broken and not self._open.is_closed
            if is_broken:
                self._replace()

    def _delivered(self, one: _Open, error: Any, message: Any) -> None:
        if error is not None:
            self._broken_by(error)
            self._end(one, error)
        elif self._open.remove(one):
            one.appended(message.offset())

    def _end(self, one: _Open, error: Any) -> None:
        if self._open.remove(one):
            one.set_exception(self._failure(error, str(one)))

    def _failure(self, error: Any, doing: str) -> ClientError:
        if isinstance(error, ClientError):
            return ClientError(f"{doing}: {error}", retriable=error.retriable)
        failure, found = client_error(error, doing), error_of(error)
        if found is not None and found.fatal():
            return ClientError(f"{failure}. Its producer is replaced", retriable=True)
        return failure

    # A producer that works no more

    def _broken_by(self, error: Any) -> None:
        found = error_of(error)
        if found is not None and (found.fatal() or found.code() == KafkaError._FATAL):
            with self._changed:
                self._is_broken = True

    def _replace(self) -> None:
        logger.warning("a producer met a fatal error and is replaced")
        _purge(self._producer)
        try:
            self._producer = self._build()
        except ClientError as error:
            logger.warning("{}", error)
            time.sleep(REPLACE_AFTER_S)
            return
        with self._changed:
            self._is_broken = False


def _purge(producer: Any) -> None:
    """End everything that is under way in it."""
    producer.purge()
    try:
        producer.flush(PURGE_TIMEOUT_S)
    except KafkaException:  # the fatal error, which is raised once
        producer.flush(PURGE_TIMEOUT_S)
