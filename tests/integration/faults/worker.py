"""A consumer as a process of its own, which a test may kill: at a point of its choice, to the write.

    python -m tests.integration.faults.worker '{"servers": ..., "topic": ..., ...}'

What a record does to its handler stands in its value (see `Plan`). What the handler does is appended to a file, line
by line: `O_APPEND` makes that file one history, whoever writes to it, and no kill takes back what was written.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from loguru import logger

from kafetrain import (
    ConstantBackoff,
    KafkaConsumer,
    NotRetriableError,
    Record,
    Settings,
    get_retry_attempt,
    is_retry_message,
    json_of,
)
from kafetrain.client.confluent_consumer import ConfluentConsumer
from kafetrain.client.confluent_producer import ConfluentProducer
from kafetrain.client.confluent_transactions import ConfluentTransactions
from kafetrain.client.kafka_python_consumer import KafkaPythonConsumer
from kafetrain.client.kafka_python_producer import KafkaPythonProducer
from kafetrain.client.kafka_python_transactions import KafkaPythonTransactions
from kafetrain.client.ports import Committed, OutgoingRecord, TransactionalProducerPort
from kafetrain.record import TopicPartition
from tests.clients import library_under_test, named_for

__all__ = ["HistoryFile", "Job", "Plan", "Point", "run"]


class Point:
    """Where a process may be killed."""

    HANDLER = "in the handler of a first run"
    BEFORE_LOCK = "before a lock is written"
    BEFORE_RETRY_RECORD = "between a lock and its retry record"
    BEFORE_SOURCE_COMMIT = "between a retry record and the commit"
    RETRY_HANDLER = "in the handler of a retry"
    BEFORE_NEXT_ATTEMPT = "between a retry's failure and its entry"
    BEFORE_TOMBSTONE = "between a retry's success and its tombstone"
    BEFORE_RETRY_COMMIT = "between a tombstone and the commit"
    BEFORE_END_OF_DEAD = "between a dead letter and the end of its lock"
    BEFORE_END_OF_PARKED = "between a parked dead letter and its tombstone"
    BEFORE_END_OF_TRANSACTION = "between the offsets of a transaction and its end"
    AFTER_END_OF_TRANSACTION = "between the end of a transaction and what follows here"


@dataclass(frozen=True)
class Job:
    """What a process is to do. Everything in it is JSON."""

    servers: str
    group: str
    topic: str
    history: str
    """The file that all processes append to."""
    client: str = field(default_factory=library_under_test)
    client_options: Mapping[str, Any] = field(default_factory=dict)
    assignor: str = ""
    """`crossed`, `cooperative-sticky`, or empty for the client's default."""
    max_retries: int = 3
    backoff_ms: int = 50
    free_on_dlq: bool = False
    delivery: Literal["at-least-once", "transactional"] = "at-least-once"
    concurrency: int = 4
    shutdown_timeout_s: float = 10.0
    work_ms: int = 0
    """How long each run of a handler takes."""
    kill_at: str = ""
    """One of `Point`."""
    kill_at_nth: int = 1

    @property
    def client_id(self) -> str:
        return str(self.client_options.get("client_id", ""))

    def as_text(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Plan:
    """A record's value."""

    failures: int = 0
    """How often its handler fails before it succeeds; -1: once, and for good."""
    work_ms: int = 0
    """How long each run of its handler takes, besides what they all take."""

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode()


class HistoryFile:
    """Lines of JSON, each written at once. Any thread, any process."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def add(self, kind: str, record: Record | None = None, *, pid: int = 0, final: bool = False) -> None:
        line: dict[str, Any] = {"kind": kind, "pid": pid or os.getpid(), "time": time.monotonic()}
        if record is not None:
            line |= {"key": record.key.decode(), "partition": record.partition, "offset": record.offset}
            line |= {"attempt": get_retry_attempt(record), "retry": is_retry_message(record), "final": final}
        os.write(self._file, json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        os.close(self._file)


class Killer:
    """Kills this process when it passes its point for the nth time. Any thread."""

    def __init__(self, point: str, nth: int) -> None:
        self._point, self._left = point, nth
        self._mutex = threading.Lock()

    def passes(self, point: str) -> None:
        if point != self._point:
            return
        with self._mutex:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
                threading.Event().wait()  # nothing more happens on this thread until the signal is there


Send = Callable[[Any, OutgoingRecord], "Future[int]"]


class Sabotage:
    """Stands around the client's `send` and `commit`, and tells the killer which point of the protocol this is."""

    def __init__(self, job: Job, killer: Killer) -> None:
        self._library = job.client
        self._retry_group, self._killer = f"group {job.group}-retry", killer
        self._dead_letters: dict[bytes, str] = {}  # acknowledged; id -> state
        self._retry_records = self._tombstones = 0  # acknowledged

    def install(self) -> None:
        producers: type[Any] = ConfluentProducer if self._library == "confluent" else KafkaPythonProducer
        consumers: type[Any] = ConfluentConsumer if self._library == "confluent" else KafkaPythonConsumer
        commit = consumers.commit

        def watched_commit(consumer: Any, offsets: Mapping[TopicPartition, Committed]) -> None:
            if consumer._name != self._retry_group:
                if self._retry_records:
                    self._killer.passes(Point.BEFORE_SOURCE_COMMIT)
            elif self._tombstones:
                self._killer.passes(Point.BEFORE_RETRY_COMMIT)
            commit(consumer, offsets)

        self._install_for_transactions()
        producers.send, consumers.commit = self._watched(producers.send), watched_commit

    def _install_for_transactions(self) -> None:
        transactions: type[Any] = ConfluentTransactions if self._library == "confluent" else KafkaPythonTransactions
        commit, end = transactions.commit, transactions._end

        def watched_commit(producer: TransactionalProducerPort, offsets: Mapping[TopicPartition, Committed]) -> None:
            is_retry = any(place.topic.startswith("retry-") for place in offsets)
            self._killer.passes(Point.BEFORE_RETRY_COMMIT if is_retry else Point.BEFORE_SOURCE_COMMIT)
            commit(producer, offsets)
            self._killer.passes(Point.AFTER_END_OF_TRANSACTION)

        def watched_end(producer: TransactionalProducerPort) -> None:
            self._killer.passes(Point.BEFORE_END_OF_TRANSACTION)
            end(producer)

        transactions.commit, transactions._end = watched_commit, watched_end
        if self._library != "confluent":  # whose transactions send through its producer
            transactions.send = self._watched(transactions.send)

    def _watched(self, send: Send) -> Send:
        def watched_send(producer: Any, record: OutgoingRecord) -> Future[int]:
            self._before(record)
            future = send(producer, record)
            future.add_done_callback(lambda done: self._after(record, done))
            return future

        return watched_send

    def _before(self, record: OutgoingRecord) -> None:
        if record.topic.startswith("retry-"):
            self._killer.passes(Point.BEFORE_RETRY_RECORD)
        if not record.topic.startswith("redirect-") or (record.key or b"").startswith(b"group/"):
            return
        if (state := self._dead_letters.get(record.key or b"")) is not None:
            self._killer.passes(Point.BEFORE_END_OF_PARKED if state == "parked" else Point.BEFORE_END_OF_DEAD)
        elif record.value is None:
            self._killer.passes(Point.BEFORE_TOMBSTONE)
        elif json.loads(record.value)["attempt"] > 1:
            self._killer.passes(Point.BEFORE_NEXT_ATTEMPT)
        else:
            self._killer.passes(Point.BEFORE_LOCK)

    def _after(self, record: OutgoingRecord, done: Future[int]) -> None:
        if done.exception() is not None:
            return
        if record.topic.startswith("retry-"):
            self._retry_records += 1
        elif record.topic.startswith("redirect-") and record.value is None:
            self._tombstones += 1
        elif record.topic.startswith("dlq-"):
            headers = {name: value or b"" for name, value in record.headers}
            self._dead_letters[headers["x-dlq-id"]] = headers["x-dlq-state"].decode()


def handler_of(job: Job, history: HistoryFile, killer: Killer) -> Callable[[Record], None]:
    never = threading.Event()

    def handle(record: Record) -> None:
        attempt, plan = get_retry_attempt(record), Plan(**json_of(record))
        history.add("started", record)
        if work_ms := job.work_ms + plan.work_ms:
            never.wait(work_ms / 1000)
        killer.passes(Point.RETRY_HANDLER if is_retry_message(record) else Point.HANDLER)
        if plan.failures < 0:
            history.add("failed", record, final=True)
            raise NotRetriableError("as its plan says")
        if attempt < plan.failures:
            history.add("failed", record, final=attempt >= job.max_retries)
            raise ValueError("as its plan says")
        history.add("ended", record)

    return handle


class CrossedAssignor(RangePartitionAssignor):  # type: ignore[misc]  # kafka-python has no types
    """As the range assignor, but a retry partition goes to the process after the one with its source partition.

    Processes are told apart by their client ids, with which the ids of their members begin.
    """

    @classmethod
    def assign(cls, cluster: Any, members: Any) -> Any:
        assigned = super().assign(cluster, members)
        if not all(topic.startswith("retry-") for member in members for topic in member.metadata.topics):
            return assigned
        ids = sorted(assigned)
        return {id: assigned[ids[number - 1]] for number, id in enumerate(ids)}


ASSIGNORS = {"crossed": CrossedAssignor, "cooperative-sticky": CooperativeStickyAssignor}


def settings_of(job: Job) -> Settings:
    options = dict(job.client_options)
    if job.assignor:
        options["partition_assignment_strategy"] = (ASSIGNORS[job.assignor],)
    return Settings(
        bootstrap_servers=job.servers,
        group_id=job.group,
        client=job.client,
        client_options=named_for(job.client, options),
        max_retries=job.max_retries,
        backoff=ConstantBackoff(timedelta(milliseconds=job.backoff_ms)),
        free_on_dlq=job.free_on_dlq,
        delivery=job.delivery,
        concurrency=job.concurrency,
        shutdown_timeout=timedelta(seconds=job.shutdown_timeout_s),
        _env_file=None,
    )


def run(job: Job) -> None:
    """Consume until SIGTERM. Raises what ended it otherwise."""
    history, killer = HistoryFile(job.history), Killer(job.kill_at, job.kill_at_nth)
    Sabotage(job, killer).install()
    KafkaConsumer.resilient(settings_of(job), job.topic, handler_of(job, history, killer)).run()
    history.add("drained")


if __name__ == "__main__":
    logger.remove()
    logger.add(sys.stderr, level="INFO")
    logger.enable("kafetrain")
    run(Job(**json.loads(sys.argv[1])))
