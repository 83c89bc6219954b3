"""The demo itself: producer, consumer and handler as an application has them, plus a reader of the dead letters."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from types import TracebackType

from kafetrain import (
    KafetrainError,
    KafkaConsumer,
    Lock,
    NotRetriableError,
    Record,
    get_retry_attempt,
    json_of,
)
from kafetrain.cli.demo.cluster import PARTITIONS, Cluster
from kafetrain.cli.demo.events import Kind, Recorder
from kafetrain.cli.demo.scenario import Scenario
from kafetrain.client.ports import ConsumerPort, OutgoingRecord
from kafetrain.core.headers import DeadLetterState
from kafetrain.record import DlqHeader, TopicPartition, header
from kafetrain.threads import LoopThread

__all__ = ["PaymentTimeout", "Stage"]

READY_TIMEOUT_S = 60.0
CLOSE_TIMEOUT = timedelta(seconds=5)


class PaymentTimeout(Exception):
    """Something that may be better a moment later."""


class Stage:
    """Enter it to start everything; leaving stops everything. One thread."""

    def __init__(self, cluster: Cluster, scenario: Scenario, recorder: Recorder) -> None:
        self._cluster, self._scenario, self._recorder = cluster, scenario, recorder
        self._unsent = list(reversed(scenario.orders))
        self._sent: list[Future[int]] = []
        self._ready: set[int] = set()
        self._all_ready = threading.Event()
        self._undo: list[Callable[[], object]] = []

    def __enter__(self) -> Stage:
        cluster = self._cluster
        try:
            self._consumer = KafkaConsumer.resilient(
                cluster.settings, cluster.topic, self._handle, client=cluster.client
            )
            self._consumer.start()
            self._undo.append(self._consumer.stop)
            self._producer = cluster.client.producer()
            self._undo.append(lambda: self._producer.close(CLOSE_TIMEOUT))
            letters = _DeadLetters(cluster.client.reader(), self._consumer.tracker.get_dlq_topic(cluster.topic), self)
            self._letters = LoopThread(letters, "kafetrain-demo-dead-letters")
            self._letters.start()
            self._undo.append(self._end_letters)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    def warm_up(self, watch: Callable[[], None]) -> None:
        """Return once each partition has delivered: joining a group takes Kafka some seconds.

        `watch` is called again and again meanwhile. Raises `KafetrainError` after a minute.
        """
        for partition in range(PARTITIONS):
            self._sent.append(self._producer.send(OutgoingRecord(self._cluster.topic, partition, None, b"null")))
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not self._all_ready.wait(0.05):
            watch()
            self.check()
            if time.monotonic() > deadline:
                raise KafetrainError(
                    f"nothing is delivered {READY_TIMEOUT_S:.0f} s after the start: {len(self._ready)} of {PARTITIONS} "
                    f"partitions of {self._cluster.topic} are consumed"
                )

    def produce_due(self) -> None:
        """Send the orders whose time has come."""
        while self._unsent and self._unsent[-1].at_s <= self._recorder.now_s:
            order = self._unsent.pop()
            value = json.dumps({"order": order.number, "customer": order.customer.name}).encode()
            record = OutgoingRecord(self._cluster.topic, order.customer.partition, order.customer.key, value)
            self._recorder.record(Kind.PRODUCED, order.number)
            self._sent.append(self._producer.send(record))

    def check(self) -> None:
        """Raise what ended a part of the demo, if something did."""
        self._consumer.check()
        self._letters.check()
        for sent in self._sent:
            if sent.done():
                sent.result()
        self._sent = [sent for sent in self._sent if not sent.done()]

    def locks(self) -> list[Lock]:
        """The keys that are in retry or dead now."""
        return self._consumer.tracker.locks(self._cluster.topic)

    def bury(self, letter: Record) -> None:
        """A dead letter was read."""
        content = json_of(letter)
        number = content["order"] if isinstance(content, dict) else None
        if number is None:
            raise KafetrainError("a record of the warm-up, which cannot fail, is a dead letter")
        state = header(letter, DlqHeader.STATE) or "unknown"
        kind = Kind.PARKED if state == DeadLetterState.PARKED else Kind.DEAD_LETTERED
        self._recorder.record(kind, number, state)

    def _handle(self, record: Record) -> None:
        """What an application would write, plus the notes for the verdict. On a handler thread."""
        content = json_of(record)
        if content is None:  # of the warm-up
            self._ready.add(record.partition)
            if len(self._ready) == PARTITIONS:
                self._all_ready.set()
            return
        order = self._scenario.by_number[content["order"]]
        self._recorder.record(Kind.STARTED, order.number)
        time.sleep(order.work_s)
        if get_retry_attempt(record) >= order.failures:
            self._recorder.record(Kind.SUCCEEDED, order.number)
            return
        error: Exception
        if order.retriable:
            error = PaymentTimeout("the bank does not answer")
        else:
            error = NotRetriableError("there is no such address")
        self._recorder.record(Kind.FAILED, order.number, f"{type(error).__name__}: {error}")
        raise error

    def _end_letters(self) -> None:
        self._letters.request_stop()
        self._letters.join(CLOSE_TIMEOUT.total_seconds())

    def _close(self) -> None:
        """Stop everything, in reverse; the first error is raised, after all has been tried."""
        undo, self._undo = self._undo, []
        errors: list[BaseException] = []
        for end in reversed(undo):
            try:
                end()
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]


class _DeadLetters:
    """A loop that reads the dead-letter topic from its beginning."""

    def __init__(self, reader: ConsumerPort, topic: str, stage: Stage) -> None:
        self._reader, self._stage = reader, stage
        reader.assign({TopicPartition(topic, partition): None for partition in range(PARTITIONS)})

    def step(self) -> None:
        for records in self._reader.poll(timedelta(milliseconds=100)).values():
            for record in records:
                self._stage.bury(record)

    def close(self) -> None:
        self._reader.close()
