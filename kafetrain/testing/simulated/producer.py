"""The producer port on a simulated cluster: what is sent lands and is acknowledged at once, or when a test says so."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from typing import TYPE_CHECKING

from kafetrain.client.ports import ClientError, OutgoingRecord, RecordTooLargeForClientError
from kafetrain.record import TopicPartition
from kafetrain.testing.simulated.faults import Asked, Hold, LoseAnswer, Refuse, Request

if TYPE_CHECKING:
    from kafetrain.testing.simulated.core import ClusterCore, Instance

__all__ = ["SimulatedProducer", "Write"]


class Write:
    """A record that was sent and has not ended. Those of one producer for one partition land in their order."""

    def __init__(self, producer: SimulatedProducer, record: OutgoingRecord, deadline: float) -> None:
        self._producer, self.record = producer, record
        self.client = producer.instance.name
        self.place = TopicPartition(record.topic, record.partition)
        self.future: Future[int] = Future()
        self.future.set_running_or_notify_cancel()
        self.deadline = deadline
        self.offset: int | None = None
        """Where it was appended; None: it was not."""
        self.refusal: ClientError | None = None
        """Why it cannot be appended: of a transaction that is over."""
        self.is_held = False

    def land(self) -> None:
        """Append it, and what was sent to its partition before; nobody is told."""
        self._producer.land(self)

    def acknowledge(self) -> None:
        """`land`, and tell the client, of those before it first."""
        self.land()
        for write in self._producer.up_to(self):
            self._producer.end(write)

    def fail(self, error: ClientError | None = None) -> None:
        """The client is told that it failed, whether it has landed or not. It does not land any more."""
        self._producer.end(self, error or ClientError("not acknowledged in time (simulated)", retriable=True))

    def __str__(self) -> str:
        landed = "" if self.offset is None else f" landed at {self.offset}"
        return f"{self.client}: {self.place.topic}[{self.place.partition}] {self.record.key!r}{landed}"


class SimulatedProducer:
    """A `ProducerPort`. A future ends on the thread that lets its write end: the sender's, or the test's.

    `append`: what appends a record and returns its offset, or refuses it with a `ClientError`; called with the
    cluster's mutex held.
    """

    def __init__(
        self,
        core: ClusterCore,
        instance: Instance,
        *,
        delivery_timeout_s: float,
        append: Callable[[OutgoingRecord], int] | None = None,
    ) -> None:
        self._core, self.instance, self._delivery_timeout_s = core, instance, delivery_timeout_s
        self.open: list[Write] = []
        """In the order of the calls."""
        self._append = append or self._append_here
        self._is_closed = False
        instance.on_silence.append(self._fall_silent)
        instance.on_voice.append(self.go_on)

    def send(self, record: OutgoingRecord) -> Future[int]:
        write = Write(self, record, self._core.clock.monotonic() + self._delivery_timeout_s)
        refusal = self._refusal(write)
        if refusal is None:
            script = self._core.script_for(Asked(Request.PRODUCE, write.client, (record.topic,)))
            try:
                refusal = self._begin(write, None if script is None else script.fault)
            except ClientError as error:
                refusal = error
            finally:
                if script is not None:
                    script.hit()
        if refusal is not None:
            write.future.set_exception(refusal)
        self.go_on()
        return write.future

    def flush(self, timeout: timedelta) -> None:
        last = self.open[-1:]
        self._core.wait_until(lambda: not set(last) & set(self.open), timeout.total_seconds())

    def close(self, timeout: timedelta) -> None:
        self._is_closed = True
        self._core.wait_until(lambda: not self.open, timeout.total_seconds())
        for write in tuple(self.open):
            write.fail(ClientError("the producer was closed before it was acknowledged", retriable=True))

    def go_on(self) -> None:
        """Let everything land that nothing stops; give up what has had its time."""
        now = self._core.clock.monotonic()
        for write in tuple(self.open):
            if self._core.reaches(self.instance) and not write.is_held and not self._held_before(write):
                write.acknowledge()
            elif now >= write.deadline:
                write.fail()

    @property
    def is_over(self) -> bool:
        """Closed, and nothing of it is open."""
        return self._is_closed and not self.open

    # For `Write`

    def up_to(self, write: Write) -> list[Write]:
        """Of its partition, this one the last."""
        same = [other for other in self.open if other.place == write.place]
        return same[: same.index(write) + 1] if write in same else []

    def land(self, write: Write) -> None:
        with self._core.mutex:
            for other in self.up_to(write):
                if other.offset is None and other.refusal is None:
                    try:
                        other.offset = self._append(other.record)
                    except ClientError as error:
                        other.refusal = error
        self._core.wake()

    def end(self, write: Write, error: ClientError | None = None) -> None:
        with self._core.mutex:
            if write not in self.open:
                return
            self.open.remove(write)
        if error is not None or write.offset is None:
            write.future.set_exception(error or write.refusal or ClientError("never appended (simulated)"))
        else:
            write.future.set_result(write.offset)
        self._core.wake()

    # Inside

    def _begin(self, write: Write, fault: object) -> ClientError | None:
        if isinstance(fault, Refuse):
            return fault.error
        if isinstance(fault, LoseAnswer):
            with self._core.mutex:
                self.open.append(write)
            write.land()
            write.fail(fault.error)
            return None
        if callable(fault):
            fault(Asked(Request.PRODUCE, write.client, (write.record.topic,)))
        with self._core.mutex:
            self.open.append(write)
            write.is_held = isinstance(fault, Hold)
        if isinstance(fault, Hold) and fault.appended:
            write.land()
        return None

    def _refusal(self, write: Write) -> ClientError | None:
        record = write.record
        if self._is_closed:
            return ClientError(f"sending to {record.topic}: the producer is closed")
        if record.key is None and record.value is None:
            return ClientError(f"sending to {record.topic}: neither key nor value")
        with self._core.mutex:
            log, topic = self._core.find_log(write.place), self._core.topics.get(record.topic)
            if log is None or topic is None:
                return ClientError(f"sending to {record.topic}[{record.partition}]: there is no such partition")
            limit = int(topic.config("max.message.bytes"))
        if (size := _size(record)) > limit:
            return RecordTooLargeForClientError(f"sending to {record.topic}: {size} bytes, {limit} are allowed")
        return None

    def _append_here(self, record: OutgoingRecord) -> int:
        timestamp = self._core.clock.now_ms() if record.timestamp_ms is None else record.timestamp_ms
        headers = [(name, value or b"") for name, value in record.headers]
        log = self._core.log(TopicPartition(record.topic, record.partition))
        return log.append(record.key, record.value, headers, timestamp, self.instance.name)

    def _held_before(self, write: Write) -> bool:
        return any(other.is_held for other in self.up_to(write)[:-1])

    def _fall_silent(self) -> None:
        if self.instance.is_dead:
            self.open.clear()  # nobody waits for them any more


def _size(record: OutgoingRecord) -> int:
    headers = sum(len(name) + len(value or b"") for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers
