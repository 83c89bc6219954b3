"""The producer port on confluent-kafka's `Producer`.

librdkafka keeps the order, the deadline and the idempotence. Here are the bound on what is open, the futures, and what
the library does otherwise than the port says: it would create a missing topic by asking for it, and a producer that
has met a fatal error takes nothing any more, so that another one takes its place.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from loguru import logger

from kafetrain.client.confluent_errors import client_error, error_of
from kafetrain.client.ports import AdminPort, ClientError, OutgoingRecord, size_of
from kafetrain.futures import LightFuture

__all__ = ["ConfluentProducer"]

MAX_OPEN_RECORDS = 20_000
MAX_OPEN_BYTES = 64 * 1024 * 1024
"""Of keys, values and headers. A larger record goes when it is alone."""

POLL_S = 0.1
ASK_AGAIN_S = 0.05
REPLACE_AFTER_S = 1.0
PURGE_TIMEOUT_S = 5.0


class _Open(LightFuture[int]):
    """A record under way: the future of its offset."""

    def __init__(self, record: OutgoingRecord, owner: ConfluentProducer) -> None:
        super().__init__()
        self.topic, self.partition, self._owner = record.topic, record.partition, owner
        self.size_bytes = size_of(record)
        self.number = 0

    def __str__(self) -> str:
        return _doing(self)

    def __call__(self, error: Any, message: Any) -> None:
        """For the library: it was delivered, or not."""
        self._owner._delivered(self, error, message)


class ConfluentProducer:
    """A `ProducerPort`. `build` connects a library's producer.

    `send` waits, `max_block_s` at most: for room, where as much is open as may be; and for the topic, the first time
    that it is sent to or when it has grown. Never wait for a future in a
    callback: it runs on the thread that ends them.
    """

    def __init__(self, build: Callable[[], Any], build_admin: Callable[[], AdminPort], *, max_block_s: float) -> None:
        self._build, self._build_admin, self._max_block_s = build, build_admin, max_block_s
        self._producer = build()
        self._mutex = threading.Lock()  # guards what follows; the library is not called inside
        self._changed = threading.Condition(self._mutex)
        self._open: OrderedDict[int, _Open] = OrderedDict()  # in the order of the calls
        self._open_bytes = 0
        self._last_number = 0
        self._is_closed = False
        self._is_broken = False
        self._looking_up = threading.Lock()  # guards the two below; `_changed` may be taken inside
        self._admin: AdminPort | None = None
        self._partitions: dict[str, int] = {}
        self._thread = threading.Thread(target=self._run, name="kafetrain-producer", daemon=True)
        self._thread.start()

    def send(self, record: OutgoingRecord) -> Future[int]:
        one, deadline = _Open(record, self), time.monotonic() + self._max_block_s
        try:
            self._check(record, deadline)
            self._enter(one, deadline)
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
        with self._changed:
            last = self._last_number
            self._changed.wait_for(lambda: next(iter(self._open), last + 1) > last, timeout.total_seconds())

    def close(self, timeout: timedelta) -> None:
        with self._changed:
            if self._is_closed:
                return
            self._is_closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._open, timeout.total_seconds())
        self._thread.join(POLL_S * 2)
        _purge(self._producer)
        for one in list(self._open.values()):
            self._end(one, ClientError("its producer was closed; it may have been appended", retriable=True))
        with self._looking_up:
            if self._admin is not None:
                self._admin.close()

    # On the way out

    def _check(self, record: OutgoingRecord, deadline: float) -> None:
        if record.key is None and record.value is None:
            raise ClientError(f"{_doing(record)}: a record needs a key or a value")
        if not 0 <= record.partition < self._partitions.get(record.topic, 0):
            self._look_up(record, deadline)

    def _look_up(self, record: OutgoingRecord, deadline: float) -> None:
        """By the admin client, which creates no topic."""
        with self._looking_up:
            while not 0 <= record.partition < self._partitions.get(record.topic, 0):
                if self._is_closed:
                    raise ClientError(f"{_doing(record)}: the producer is closed")
                if self._admin is None:
                    self._admin = self._build_admin()
                found = self._admin.describe_topics([record.topic]).get(record.topic)
                if found is not None:
                    self._partitions[record.topic] = found.partitions
                    if 0 <= record.partition < found.partitions:
                        return
                if record.partition < 0 or time.monotonic() > deadline:
                    why = "it does not exist" if found is None else f"the topic has {found.partitions} partitions"
                    raise ClientError(f"{_doing(record)}: {why}")
                time.sleep(ASK_AGAIN_S)

    def _enter(self, one: _Open, deadline: float) -> None:
        size = one.size_bytes
        with self._mutex:
            has_room = self._fits(size) or self._changed.wait_for(
                lambda: self._is_closed or self._fits(size), max(0.0, deadline - time.monotonic())
            )
            if self._is_closed:
                raise ClientError(f"{one}: the producer is closed")
            if not has_room:
                why = f"{len(self._open)} records of {self._open_bytes} bytes are not acknowledged yet"
                raise ClientError(f"{one}: {why}", retriable=True)
            one.number = self._last_number = self._last_number + 1
            self._open[one.number] = one
            self._open_bytes += size

    def _fits(self, size: int) -> bool:
        if not self._open:
            return True
        return len(self._open) < MAX_OPEN_RECORDS and self._open_bytes + size <= MAX_OPEN_BYTES

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
                if self._is_closed and not self._open:
                    return
                is_broken = self._is_broken and not self._is_closed
            if is_broken:
                self._replace()

    def _delivered(self, one: _Open, error: Any, message: Any) -> None:
        if error is not None:
            self._broken_by(error)
            self._end(one, error)
        elif (offset := message.offset()) is not None and offset >= 0:
            self._end(one, None, offset)
        else:  # a repeated batch whose first copy the broker knows, but no longer where it is
            self._end(one, ClientError("appended, but nobody tells at which offset", retriable=True))

    def _end(self, one: _Open, error: Any, offset: int = -1) -> None:
        with self._mutex:
            if self._open.pop(one.number, None) is None:
                return
            self._open_bytes -= one.size_bytes
            self._changed.notify_all()
        if error is None:
            one.set_result(offset)
        else:
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


def _doing(record: OutgoingRecord | _Open) -> str:
    return f"sending to {record.topic}[{record.partition}]"
