"""Layer 1: which keys are in retry, and the writes that keep it so.

ErrorTracker ── SourcePath / OwnRetryLoop   decide, by the rules in core
    │             └─ Writes, Sequencer      entry, then retry record, ... (thread: kafetrain-writes)
    └─ TrackerState: claims, lock tables
          └─ RedirectReader                 fills them from the log      (thread: kafetrain-redirects)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import datetime
from typing import Any

from kafetrain.client.own_consumer import accept_listener, next_offsets
from kafetrain.client.ports import Client
from kafetrain.clock import Clock, SystemClock
from kafetrain.core.lock_view import locks_of, utc
from kafetrain.errors import ConfigurationError, NotTrackedError
from kafetrain.futures import plain
from kafetrain.handlers import check_handler
from kafetrain.outcome import Lock, Outcome
from kafetrain.record import Handler, Record, TopicPartition
from kafetrain.settings import Settings
from kafetrain.topic_setup import PreparedTopics, prepare_topics
from kafetrain.tracker.breaking import Breakers
from kafetrain.tracker.hooks import Hooks, OnDeadKey, OnDeadLetter
from kafetrain.tracker.listener import NotingListener
from kafetrain.tracker.parts import Parts
from kafetrain.tracker.source_path import Pending
from kafetrain.tracker.state import METADATA_PREFIX, Side, TrackerState

__all__ = ["ErrorTracker"]


class ErrorTracker:
    """Knows which keys of which topics are in retry, and writes what follows from a failure.

    Building it does no I/O. Any thread may call it; records of one key one after the other. `close` it, or use `with`.
    `on_dead_letter(record, error)`: its dead letter is durable; the record as its handler was given it, and what that
    raised. `on_dead_key(key)`: its lock says dead, durably. Both are called on a thread of their own, for alarms: what
    they raise is logged once, and what they are too slow for is dropped. `client` and `clock` are for tests.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        on_dead_letter: OnDeadLetter | None = None,
        on_dead_key: OnDeadKey | None = None,
        client: Client | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.settings = settings
        self.clock: Clock = clock or SystemClock()
        self.state = TrackerState()
        """For the layers above."""
        self._breakers = Breakers(settings, self.clock, self.state)
        self._hooks = Hooks(on_dead_letter, on_dead_key)
        self._client = client
        self._parts: Parts | None = None
        self._starting = threading.Lock()  # while they are built
        self.submit: Callable[[Record, Handler], Outcome | Pending] = self._not_running
        """As `process`, for source records, without waiting until it is durable. The source path's own method while
        something is tracked: this is the hot path."""
        self._by_assignment: set[Side] = set()

    # Life

    def start_tracking(self, topic: str) -> None:
        """Create or verify the topics of `topic` and restore its locks.

        Returns once they are restored; with `rebalance_listener`, or under layers 2 and 3, each partition is restored
        when it is assigned instead. Calling it again for a topic does nothing.
        Raises: `ConfigurationError` about topics, `RestoreTimeoutError`, `ClientError` where no broker answers. Nothing
        is left running then.
        """
        if topic in self.state.topics:
            return
        try:
            parts = self._started()
            self.state.add_topic(prepare_topics(parts.admin, self.settings, topic, clock=self.clock))
            prepared = self.state.topic(topic)
            names = prepared.names
            claimed: list[tuple[Side, TopicPartition]] = []
            for side, name, count in (
                (Side.SOURCE, names.source, prepared.source_partitions),
                (Side.RETRY, names.retry, prepared.partitions[names.retry]),
            ):
                if side in self._by_assignment:
                    continue
                partnered = [n for n in range(count) if self.state.redirect_of(side, prepared, n) is not None]
                self.state.claim(side, prepared, partnered, set_start=side is Side.SOURCE)
                claimed += [(side, TopicPartition(name, number)) for number in partnered]
            for side, place in claimed:
                self.state.ready_claim(side, place)
        except BaseException:
            self.state.drop_topic(topic)
            if not self.state.topics:
                self.close()
            raise

    def close(self) -> None:
        """End the threads and free the clients, bounded by `shutdown_timeout`. What is under way is finished first,
        where a broker answers. Calling it again does nothing."""
        parts, self._parts = self._parts, None
        self.submit = self._not_running
        if parts is not None:
            parts.close(self.settings.shutdown_timeout)
        self.state.forget_all()
        self._breakers.forget_all()

    def __enter__(self) -> ErrorTracker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check(self) -> None:
        """Raise what ended one of the tracker's own threads, if something did."""
        self.state.check()

    # Names

    def get_retry_topic(self, topic: str) -> str:
        """Where records of `topic` wait. `NotTrackedError` before `start_tracking`, as for the two below."""
        return self.state.topic(topic).names.retry

    def get_redirect_topic(self, topic: str) -> str:
        """The log of the locks of `topic`."""
        return self.state.topic(topic).names.redirect

    def get_dlq_topic(self, topic: str) -> str:
        """Where records of `topic` end that never succeeded."""
        return self.state.topic(topic).names.dlq

    def get_retry_group(self) -> str:
        """The consumer group that reads retry topics."""
        return f"{self.settings.group_id}-retry"

    # Records

    def is_in_retry_chain(self, record: Record) -> bool:
        """True where the record must not run now: `redirect` it, and commit.

        A source record: its id is pending, dead or ended, or an earlier one of its key is pending or dead, or a later
        one is known. A retry record: it is not the head of its chain, or has ended.
        Blocks until the partition's locks are restored. Raises `NotTrackedError`, `RestoreTimeoutError`.
        """
        topic = self._retry_topic_of(record)
        if topic is not None:
            return self._running().own_loop.may_not_run(record, topic)
        return self._running().source.may_not_run(record)

    def redirect_async(self, record: Record, error: BaseException | None = None) -> Future[Outcome]:
        """Put `record` into the retry chain of its key.

        Effect: `is_in_retry_chain` sees the lock when this returns. The future ends when the entry and, after it, the
            retry record are acknowledged; only then may the offset be committed. Repeated for the same record it
            writes no second entry; for a record that has ended, or of another group, it does nothing.
        Attempts: with `error` one is counted, and a record that has none left or is not retriable becomes a dead
            letter instead; without, it is side-lined at the attempt it has. A retry record behind a dead one is
            parked in the dead-letter topic.
        Threads: any; records of one key in offset order. It may wait for room in the producer.
        Rebalance: still open when the partition goes, the future ends with `PartitionLostError`; the next owner reads
            the record again.
        Raises: `NotTrackedError`. The future: `WriteFailedError`, `RecordTooLargeError`.
        """
        self._for_own_loops("redirect_async")
        topic = self._retry_topic_of(record)
        if topic is not None:
            return plain(self._running().own_loop.redirect(record, topic, error))
        return plain(self._running().source.redirect(record, error).done)

    def redirect(self, record: Record, error: BaseException | None = None) -> Outcome:
        """As `redirect_async`, and wait until it is durable."""
        return self.redirect_async(record, error).result()

    def free(self, record: Record) -> None:
        """The record was handled: end its lock, so that the next of its key may run. Returns when durable.

        Does nothing for a record that holds no lock, as all source records that ran. Raises `WriteFailedError`.
        """
        self._for_own_loops("free")
        topic = self._retry_topic_of(record)
        if topic is not None:
            self._running().own_loop.free(record, topic)

    def send_to_dlq(self, record: Record, error: BaseException) -> Outcome:
        """Make the record a dead letter, whatever kind of error this is. Returns when durable.

        What that means for its key is up to `free_on_dlq`. A record behind an open one of its key waits in its place
        instead, as with `redirect`: the order comes first. Does nothing for a record that has ended.
        """
        self._for_own_loops("send_to_dlq")
        topic = self._retry_topic_of(record)
        if topic is not None:
            return self._running().own_loop.redirect(record, topic, error, die=True).result()
        return self._running().source.bury(record, error).done.result()

    def process(self, record: Record, handler: Handler) -> Outcome:
        """The whole branch in one call: run the handler if the record may run, and do what follows.

        Returns when durable; the offset may be committed, except after NOT_DUE. `Pause` is raised on, with nothing
        written, and so is what is no `Exception`. An open breaker raises `Pause` as well.
        """
        self._for_own_loops("process")
        topic, handler = self._retry_topic_of(record), self._breakers.guard(handler)
        if topic is not None:
            return self._running().own_loop.process(record, topic, handler)
        result = self.submit(record, handler)
        return result if isinstance(result, Outcome) else result.done.result()

    def resilient_handler(self, handler: Handler) -> Handler:
        """`process` as a callable, to wrap a handler of any framework. It returns the `Outcome`."""
        self._for_own_loops("resilient_handler")
        check_handler(handler)
        guarded = self.guard(handler)

        def resilient(record: Record) -> Outcome:
            return self.process(record, guarded)

        return resilient

    def due_at(self, record: Record) -> datetime:
        """When the record's turn comes, at the earliest: a retry record's, its chain's head's due time. In the past
        for a source record, and for what need not wait. An aware datetime in UTC."""
        topic = self._retry_topic_of(record)
        return utc(0 if topic is None else self._running().own_loop.due_ms(record, topic))

    def defer(self, consumer: Any, record: Record) -> None:
        """Pause the record's partition in your kafka-python consumer, seek back to it, resume it when it is due.

        Call it on the thread that iterates over the consumer. What follows the record in its partition is delivered
        after it again: with `poll()` instead of the iterator, skip the rest of the partition's batch yourself.
        """
        wait = self.due_at(record) - utc(self.clock.now_ms())
        self._running().deferrals.defer(consumer, record, wait)

    def offsets(self, record: Record) -> Mapping[Any, Any]:
        """What to commit after this record, for kafka-python's `commit`: the next offset, with our metadata.

        The metadata tells a later instance that this position is ours. An offset that an operator sets carries none,
        and so the records after it run again, as was meant.
        """
        floor = self.state.floors.get(TopicPartition(record.topic, record.partition))
        return next_offsets(record, "" if floor is None else f"{METADATA_PREFIX}{floor}")

    # Partitions

    def rebalance_listener(self) -> Any:
        """A listener for your consumers' `subscribe`: only assigned partitions are tracked from now on.

        It notes the change and returns; the first tracker call for a record of a new partition waits, in the caller's
        thread, until that partition is restored. Ask for it before `start_tracking`, or all are restored first.
        A group that has never committed: commit `offsets` after its first record, before the process may crash. Until
        then a restart takes the records for rewound, and those that failed may run beside their own retries.
        """
        self._for_own_loops("rebalance_listener")
        self._by_assignment |= {Side.SOURCE, Side.RETRY}
        accept_listener(NotingListener)
        return NotingListener(self.state)

    def track_by_assignment(self, side: Side) -> None:
        """A layer above says which partitions of this side it works on."""
        if side in self._by_assignment:
            return
        self._by_assignment.add(side)
        with self.state.mutex:
            for topic in self.state.topics.values():
                self.state.release(side, topic)

    def locks(self, topic: str) -> list[Lock]:
        """Every key of `topic` in retry or dead, as far as this tracker tracks its partitions."""
        prepared = self.state.topic(topic)
        found: list[Lock] = []
        with self.state.mutex:
            for place, table in self.state.tables.items():
                if place.topic == prepared.names.redirect:
                    found += locks_of(table, self.settings.group_id, topic)
        return sorted(found, key=lambda lock: (lock.partition, lock.due))

    def orphans(self, topic: str) -> dict[int, int]:
        """By partition: locks that were released since the start, because their record can never arrive."""
        self.state.topic(topic)
        with self.state.mutex:
            return {place.partition: count for place, count in self.state.orphans.items() if place.topic == topic}

    def malformed(self, topic: str) -> dict[TopicPartition, int]:
        """By partition of the redirect and the retry topic: records read since the start that are damaged, or that
        nobody of ours wrote. Those of the retry topic are dead letters of state `malformed`."""
        names = self.state.topic(topic).names
        with self.state.mutex:
            found = self.state.malformed.items()
            return {place: count for place, count in found if place.topic in (names.redirect, names.retry)}

    def restore_seconds(self, topic: str) -> dict[int, float]:
        """By partition that is ours: how long restoring its locks took."""
        self.state.topic(topic)
        with self.state.mutex:
            ours, found = self.state.source_claims, self.state.restored_in_s.items()
            return {place.partition: took_s for place, took_s in found if place.topic == topic and place in ours}

    # For the layers above

    def guard(self, handler: Handler) -> Handler:
        """`handler` inside of the breaker of its record's topic, shared by both sides; itself where none is set.

        Raises `Pause` instead of running it while the breaker is open, and instead of a failure that opens it. `submit`
        does not do this: middlewares stand around the guard.
        """
        return self._breakers.guard(handler)

    @property
    def client(self) -> Client:
        """Builds the clients, from the settings."""
        if self._client is None:
            from kafetrain.client.choose import client_for

            self._client = client_for(self.settings)
        return self._client

    @property
    def parts(self) -> Parts:
        """The running parts. `NotTrackedError` before the first `start_tracking`."""
        return self._running()

    def _for_own_loops(self, name: str) -> None:
        if self.settings.delivery == "transactional":
            raise ConfigurationError(
                f'{name}() is for loops of your own, which commit offsets themselves, and delivery="transactional" '
                f'commits them with its writes: use KafkaConsumer.resilient, or delivery="at-least-once"'
            )

    @staticmethod
    def _not_running(record: Record, handler: Handler) -> Outcome | Pending:
        raise NotTrackedError(record.topic)

    def _retry_topic_of(self, record: Record) -> PreparedTopics | None:
        return self.state.by_retry_topic.get(record.topic)

    def _running(self) -> Parts:
        if self._parts is None:
            raise NotTrackedError("(any)")
        return self._parts

    def _started(self) -> Parts:
        with self._starting:
            if self._parts is None:
                self._parts = Parts(self.client, self.state, self.settings, self.clock, self._hooks)
                self._parts.start()
                self.submit = self._parts.source.submit
            return self._parts
