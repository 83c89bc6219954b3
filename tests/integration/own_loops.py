"""Applications that poll by themselves: their consumers, the loops of the documentation, their handlers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from kafka import KafkaConsumer

from kafetrain import ErrorTracker, Outcome, Record, get_retry_attempt
from tests.integration.journal import Journal

if TYPE_CHECKING:
    from kafetrain import Handler
    from kafetrain.testing import Broker


TIMEOUT_MS = 500
"""When iterating ends without a record."""


def own_consumer(broker: Broker, group: str, **options: Any) -> KafkaConsumer:
    """As an application would build it."""
    return KafkaConsumer(
        bootstrap_servers=broker.bootstrap_servers,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        fetch_max_wait_ms=50,
        **broker.client_options,
        **options,
    )


def subscribe(consumer: KafkaConsumer, *topics: str, listener: Any = None) -> None:
    """With the topics' partitions known, so that it joins once: kafka-python 3.0 may lose a second join."""
    consumer.subscribe(topics, listener=listener)
    for topic in topics:
        consumer.partitions_for_topic(topic)


Loop = Callable[[KafkaConsumer, threading.Event], None]


@contextmanager
def running(loop: Loop, *consumers: KafkaConsumer) -> Iterator[Callable[[], None]]:
    """The loop, in a thread for each consumer. Gives a function that raises what ended one of them."""
    stopping, errors = threading.Event(), []

    def run(consumer: KafkaConsumer) -> None:
        try:
            loop(consumer, stopping)
        except BaseException as error:
            errors.append(error)
        finally:
            consumer.close(autocommit=False)

    def check() -> None:
        if errors:
            raise errors[0]

    threads = [threading.Thread(target=run, args=(consumer,)) for consumer in consumers]
    for thread in threads:
        thread.start()
    try:
        yield check
    finally:
        stopping.set()
        for thread in threads:
            thread.join(30)
    check()


def branching_loop(tracker: ErrorTracker, handle: Handler) -> Loop:
    """The loop of the documentation."""

    def loop(consumer: KafkaConsumer, stopping: threading.Event) -> None:
        while not stopping.is_set():
            for record in consumer:  # ends after consumer_timeout_ms without a record
                if stopping.is_set():
                    return
                if tracker.due_at(record) > datetime.now(timezone.utc):
                    tracker.defer(consumer, record)
                    continue
                if tracker.is_in_retry_chain(record):
                    tracker.redirect(record)
                else:
                    try:
                        handle(record)
                    except Exception as error:
                        tracker.redirect(record, error)
                    else:
                        tracker.free(record)
                consumer.commit(tracker.offsets(record))

    return loop


def short_loop(tracker: ErrorTracker, handle: Handler, outcomes: list[tuple[bytes, Outcome]] | None = None) -> Loop:
    """The same with `process`."""

    def loop(consumer: KafkaConsumer, stopping: threading.Event) -> None:
        while not stopping.is_set():
            for record in consumer:
                if stopping.is_set():
                    return
                outcome = tracker.process(record, handle)
                if outcomes is not None:
                    outcomes.append((record.value, outcome))
                if outcome is Outcome.NOT_DUE:
                    tracker.defer(consumer, record)
                else:
                    consumer.commit(tracker.offsets(record))

    return loop


class OwnRecords:
    """A handler for own loops, which see retry records as they are: it looks at what they carry."""

    def __init__(self, journal: Journal, handle: Handler) -> None:
        self._journal, self._handle = journal, handle

    def __call__(self, record: Record) -> object:
        headers = dict(record.headers)
        if "x-retry-id" not in headers:
            return self._journal.recording(self._handle)(record)
        return self._journal.recording(self._handle)(AsSource(record, headers))


class AsSource:
    """A retry record by its source's place, for the journal."""

    def __init__(self, record: Record, headers: dict[str, Any]) -> None:
        self.topic = headers["x-retry-topic"].decode()
        self.partition, self.offset = int(headers["x-retry-partition"]), int(headers["x-retry-offset"])
        self.key, self.value, self.headers, self.timestamp = record.key, record.value, record.headers, record.timestamp


def fail_as_told(record: Record) -> None:
    _, _, times = record.value.partition(b" fails ")
    if get_retry_attempt(record) < int(times or 0):
        raise ValueError("no")
