"""A managed producer: sends and waits, or sends and calls back.

A record of `send_async` is *pending* until its callback has been called. Pending records are bounded in number and
bytes, each is in exactly one place, and each way out of there leads to the callback:

    send_async ─▶ queue ─▶ sender thread ─▶ client ─▶ its future ─▶ callback thread
    (waits for room)  (too late: failed)      (ends every future)

The sender thread waits for metadata and brokers, so the caller does not. Callbacks have a thread of their own: on the
client's, one that is slow, or that sends, would hold up every acknowledgement.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeAlias

from loguru import logger

from kafetrain.client.by_kafka_python import by_kafka_python
from kafetrain.client.kafka_python_publisher import Publisher, PublishingClient
from kafetrain.client.ports import ClientError, OutgoingRecord
from kafetrain.errors import ConfigurationError
from kafetrain.managed.producer_config import ProducerConfig
from kafetrain.settings import Settings

__all__ = ["Callback", "GivenHeaders", "ManagedProducer", "Metadata"]


class Metadata(NamedTuple):
    """Where a record was appended. With `required_acks` none the offset is -1."""

    partition: int
    offset: int


Callback: TypeAlias = Callable[[Metadata | None, Exception | None], object]
"""Called once with what is known: the metadata, or the error."""

GivenHeaders: TypeAlias = Mapping[str, Any] | Iterable[tuple[str, Any]]
"""By name or as pairs; values are text or bytes."""


@dataclass(slots=True)
class _Pending:
    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    callback: Callback | None
    deadline: float
    size_bytes: int


class ManagedProducer:
    """Any thread may call it. Connects when it first sends. `close` it, or let the registry's `wait_stop`.

    `settings`: where to connect and how, in place of what `config` says about that.
    """

    def __init__(self, config: ProducerConfig, settings: Settings | None = None) -> None:
        self.config = config
        self._settings = by_kafka_python(config.settings() if settings is None else settings)
        self._building = threading.Lock()  # taken alone; guards _publisher while it is built
        self._publisher: Publisher | None = None
        # Guards what follows; notified when a record is no longer pending. Nothing else is taken inside.
        self._changed = threading.Condition()
        self._pending = self._pending_bytes = 0
        self._closed = False
        self._queue: SimpleQueue[_Pending | None] = SimpleQueue()
        self._ended: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def send(
        self,
        topic: str,
        key: str | bytes | None,
        value: str | bytes | None,
        headers: GivenHeaders = (),
    ) -> Metadata:
        """Append a record and wait until that is acknowledged. Returns its partition and offset.

        The partition is that of the key's hash, as other clients have it. Raises `ClientError`, within about
        `delivery_timeout`; whether the record was appended is not known then. `ConfigurationError`: not enabled,
        closed, or what cannot be sent.
        """
        if not self.config.enable_sync:
            raise ConfigurationError(
                f"producer {self.config.name!r} has no send(): declare it with enable_sync=True, or use send_async()"
            )
        record = self._record(topic, key, value, headers, None)
        with self._changed:
            if self._closed:
                raise ConfigurationError(f"producer {self.config.name!r} is closed")
        partition, sent = self._hand_over(record)
        return Metadata(partition, sent.result())

    def send_async(
        self,
        topic: str,
        key: str | bytes | None,
        value: str | bytes | None,
        headers: GivenHeaders = (),
        callback: Callback | None = None,
    ) -> None:
        """Append a record and go on. `callback(metadata, error)` is called once, on a thread of the producer.

        Records are sent in the order of these calls. Waits for room, `max_block` at most; where none comes, and where
        the producer is closed, the error goes to the callback as well. Raises `ConfigurationError` where it is not
        enabled, or for what cannot be sent.
        """
        if not self.config.enable_async:
            raise ConfigurationError(
                f"producer {self.config.name!r} has no send_async(): declare it with enable_async=True, or use send()"
            )
        pending = self._record(topic, key, value, headers, callback)
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._fits(pending), self.config.max_block.total_seconds())
            refusal = None
            if self._closed:
                refusal = ClientError(f"sending to {topic}: producer {self.config.name!r} is closed")
            elif not self._fits(pending):
                why = f"{self._pending} records of {self._pending_bytes} bytes are pending"
                refusal = ClientError(f"sending to {topic}: {why}, and no room came", retriable=True)
            else:
                self._pending += 1
                self._pending_bytes += pending.size_bytes
                self._queue.put(pending)
                self._start_threads()
        if refusal is not None:
            self._call(pending.callback, None, refusal)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until every callback so far has been called; False where that took longer than `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._pending, timeout)

    def close(self, timeout: float | None = None) -> None:
        """Accept no more, let what is pending end within `timeout` seconds (None: `delivery_timeout`), fail the rest,
        and call every callback. Not for a callback's thread. Again: nothing."""
        deadline = time.monotonic() + (self.config.delivery_timeout.total_seconds() if timeout is None else timeout)
        if threading.current_thread() in self._threads:
            raise ConfigurationError(f"producer {self.config.name!r} cannot be closed by a callback of its own")
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._pending, max(0.0, deadline - time.monotonic()))
        with self._building:
            if self._publisher is not None:
                self._publisher.close(timedelta(seconds=max(0.0, deadline - time.monotonic())))
        # In this order: every future has ended when the sender has, so that every callback is queued then.
        self._queue.put(None)
        for thread in self._threads[:1]:
            thread.join()
        self._ended.put(None)
        for thread in self._threads[1:]:
            thread.join()

    def _record(
        self,
        topic: str,
        key: str | bytes | None,
        value: str | bytes | None,
        headers: GivenHeaders,
        callback: Callback | None,
    ) -> _Pending:
        if value is None and key is None:
            raise ConfigurationError(f"a record for {topic} has neither key nor value, which Kafka clients cannot send")
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        encoded = tuple((_header_name(name), _encoded(text, f"header {name}")) for name, text in pairs)
        keyed = None if key is None else _encoded(key, "key")
        body = None if value is None else _encoded(value, "value")
        size = len(keyed or b"") + len(body or b"") + sum(len(name) + len(text) for name, text in encoded)
        deadline = time.monotonic() + self.config.delivery_timeout.total_seconds()
        return _Pending(topic, keyed, body, encoded, callback, deadline, size)

    def _fits(self, one: _Pending) -> bool:
        if not self._pending:
            return True  # a larger one goes when it is alone
        has_room = self._pending_bytes + one.size_bytes <= self.config.max_pending_bytes
        return has_room and self._pending < self.config.max_pending

    def _hand_over(self, one: _Pending) -> tuple[int, Future[int]]:
        publisher = self._connected()
        partition = publisher.partition_of(one.topic, one.key)
        return partition, publisher.send(OutgoingRecord(one.topic, partition, one.key, one.value, one.headers))

    def _connected(self) -> Publisher:
        if self._publisher is not None:
            return self._publisher
        # Bounded: while no broker answers, each of those who wait here would try for itself, one after the other.
        if not self._building.acquire(timeout=self.config.delivery_timeout.total_seconds()):
            raise ClientError("no broker has answered within the delivery timeout", retriable=True)
        try:
            if self._publisher is None:
                if self._closed:
                    raise ClientError(f"producer {self.config.name!r} is closed")
                self._publisher = PublishingClient(self._settings).publisher(
                    self.config.options(),
                    delivery_timeout_ms=round(self.config.delivery_timeout.total_seconds() * 1000),
                    max_block_ms=self.config.answer_timeout_ms,
                )
            return self._publisher
        finally:
            self._building.release()

    def _start_threads(self) -> None:
        if not self._threads:
            for name, run in (("sender", self._send_all), ("callbacks", self._call_all)):
                thread = threading.Thread(target=run, name=f"kafetrain-{name}-{self.config.name}", daemon=True)
                self._threads.append(thread)
                thread.start()

    # The sender thread

    def _send_all(self) -> None:
        while (one := self._queue.get()) is not None:
            if time.monotonic() > one.deadline:  # while no broker answers, each attempt takes long: the rest is late
                self._end(one, None, ClientError(f"sending to {one.topic}: not sent within its time", retriable=True))
                continue
            try:
                partition, sent = self._hand_over(one)
            except Exception as error:
                self._end(one, None, error)
            else:
                sent.add_done_callback(partial(self._sent, one, partition))

    def _sent(self, one: _Pending, partition: int, sent: Future[int]) -> None:
        error = sent.exception()
        if isinstance(error, Exception):
            self._end(one, None, error)
        else:
            self._end(one, Metadata(partition, sent.result()), None)

    def _end(self, one: _Pending, metadata: Metadata | None, error: Exception | None) -> None:
        def end() -> None:
            self._call(one.callback, metadata, error)
            with self._changed:
                self._pending -= 1
                self._pending_bytes -= one.size_bytes
                self._changed.notify_all()

        self._ended.put(end)

    # The callback thread

    def _call_all(self) -> None:
        while (end := self._ended.get()) is not None:
            end()

    def _call(self, callback: Callback | None, metadata: Metadata | None, error: Exception | None) -> None:
        log = logger.bind(producer=self.config.name)
        if callback is None:
            if error is not None:
                log.warning("a record was not sent, and nobody asked to be told: {}", type(error).__name__)
            return
        try:
            callback(metadata, error)
        except Exception as raised:
            log.error("a callback raised {}", type(raised).__name__)


def _header_name(name: object) -> str:
    if not isinstance(name, str):
        raise ConfigurationError(f"the name of a header must be text, not {type(name).__name__}")
    return name


def _encoded(value: object, what: str) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise ConfigurationError(f"{what} must be text or bytes, not {type(value).__name__}")
