"""The retry loop: reads one retry topic, runs what is due, writes what follows.

    poll ─> admit ─> schedule ─> workers ─> outcome ─> writes ─> complete ─> commit
             (waits for its lock)  (handler)            (acknowledged)

One thread owns all of it; workers and acknowledgements only leave a callable in the inbox. A step never waits longer
than until the next due time, and only briefly while something is under way that may free the next of its chain.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import replace
from datetime import timedelta
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from loguru import logger

from kafetrain.client.ports import ClientError, ConsumerPort, NotOwnerError
from kafetrain.core.entry import Entry
from kafetrain.core.headers import DeadLetterState, Malformed, decode_retry
from kafetrain.core.rules import due_after, exhausted
from kafetrain.core.schedule import Held
from kafetrain.errors import LogTruncatedError, Pause
from kafetrain.handlers import future_of, has_no_outcome
from kafetrain.handover import Assigned, Handover, Lost, Rebalances
from kafetrain.record import Handler, MessageId, Record, TopicPartition
from kafetrain.retry.orphans import OrphanCheck
from kafetrain.retry.partition import RetryPartition
from kafetrain.retry.purge import Purge
from kafetrain.retry.refetch import Refetcher
from kafetrain.retry.view import SourceView
from kafetrain.threads import Workers
from kafetrain.topic_setup import PreparedTopics
from kafetrain.tracker.own_loops import malformed_letter, source_of
from kafetrain.tracker.parts import Parts
from kafetrain.tracker.sequence import Sequence
from kafetrain.tracker.state import Side, TrackerState
from kafetrain.tracker.writes import DeadLetter, SourceRecord

__all__ = ["RetryLoop"]

IDLE_WAIT_S = 0.1
BUSY_WAIT_S = 0.002
BUSY_WAIT_AT_MOST_S = 0.016
COMMIT_EVERY_S = 1.0
PURGE_EVERY_S = 60.0
TRUNCATION_SUSPECTED_S = 5.0


class RetryLoop:
    """Of one topic. The thread that calls `step` owns it; `close` on the same thread, after the last step."""

    def __init__(
        self,
        topic: PreparedTopics,
        handler: Handler,
        consumer: ConsumerPort,
        workers: Workers,
        background: Executor,
        parts: Parts,
        state: TrackerState,
        open_reader: Callable[[], ConsumerPort],
    ) -> None:
        self._topic, self._handler, self._consumer = topic, handler, consumer
        self._workers, self._background = workers, background
        self._parts, self._state = parts, state
        self._settings, self._clock = parts.settings, parts.clock
        self._rebalances = Rebalances()
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._partitions: dict[TopicPartition, RetryPartition] = {}
        self._assigned: set[TopicPartition] = set()  # ours, but its locks are not restored yet
        self._handovers: list[Handover] = []
        self._checks: dict[TopicPartition, OrphanCheck] = {}
        self._refetcher = Refetcher(open_reader)
        self._purge = Purge(parts, state)
        self._purging: Future[None] | None = None
        self._waiting_since: dict[TopicPartition, tuple[int, float]] = {}
        self._next_commit = self._next_purge = 0.0
        self._busy_wait_s = BUSY_WAIT_S
        self._stopping = False
        self.orphan_count = 0
        """Locks released because their record can never arrive."""
        self.malformed_count = 0
        """Records of the retry topic that were none, and went to the dead-letter topic."""
        consumer.subscribe([topic.names.retry], self._rebalances)

    def step(self) -> None:
        self._state.check()
        self._take_rebalances()
        self._take_over()
        self._read()
        self._work_inbox()
        self._start_due()
        self._answer_handovers()
        self._keep_bounds()
        self._commit_if_due()
        self._look_for_orphans()
        self._purge_if_due()

    def close(self) -> None:
        """Start nothing more, let running handlers end, commit, leave the group. Bounded by `shutdown_timeout`."""
        self._stopping = True
        deadline = self._clock.monotonic() + self._settings.shutdown_timeout.total_seconds()
        try:
            for part in self._partitions.values():
                part.leave()
            while any(part.open_work for part in self._partitions.values()) and self._clock.monotonic() < deadline:
                self._work_inbox(wait_s=0.05)
            self._commit()
        finally:
            self._rebalances.close()
            self._give_up(self._partitions.keys() | self._assigned)
            self._consumer.close()
            self._refetcher.close()

    # Whose partitions

    def _take_rebalances(self) -> None:
        for event in self._rebalances.take():
            if isinstance(event, Assigned):
                self._assigned |= event.partitions
                self._state.claim(Side.RETRY, self._topic, [place.partition for place in event.partitions])
            elif isinstance(event, Lost):
                self._give_up(event.partitions)
            else:
                event.deadline = self._clock.monotonic() + self._settings.shutdown_timeout.total_seconds()
                for place in event.partitions & self._partitions.keys():
                    self._partitions[place].leave()
                self._handovers.append(event)

    def _take_over(self) -> None:
        """Begin with assigned partitions whose locks are restored."""
        for place in tuple(self._assigned):
            claim = self._state.retry_claims.get(place)
            if claim is None or claim.redirect is None:
                continue
            if claim.error is not None:
                raise claim.error
            if not claim.ready or (position := self._consumer.position(place)) is None:
                continue
            table = self._state.tables[claim.redirect]
            part = RetryPartition(place, claim, table, position, self._state, self._settings)
            self._partitions[place] = part
            self._checks[place] = OrphanCheck(part, self._parts.admin, self._settings.group_id, self._clock)
            self._assigned.discard(place)
            self._consumer.resume([place])

    def _answer_handovers(self) -> None:
        for handover in tuple(self._handovers):
            parts = [self._partitions[place] for place in handover.partitions & self._partitions.keys()]
            late = handover.deadline is not None and self._clock.monotonic() >= handover.deadline
            if any(part.open_work for part in parts) and not late:
                continue
            answer = {part.place: offset for part in parts if (offset := part.to_commit()) is not None}
            self._give_up(handover.partitions)
            handover.answer = answer
            self._handovers.remove(handover)

    def _give_up(self, places: Any) -> None:
        for place in tuple(places):
            self._assigned.discard(place)
            self._checks.pop(place, None)
            self._waiting_since.pop(place, None)
            if (part := self._partitions.pop(place, None)) is not None:
                part.close()
        self._state.release(Side.RETRY, self._topic, {place.partition for place in places})

    # Reading

    def _read(self) -> None:
        for place, records in self._consumer.poll(self._wait()).items():
            part = self._partitions.get(place)
            if part is None:
                continue
            for record in records:
                part.ledger.begin(record.offset)
                self._sort(part, record)
        with self._state.mutex:
            for part in self._partitions.values():
                if part.claim.ready:
                    part.admit()
                    part.complete_ended()
        for part in self._partitions.values():
            self._suspect_truncation(part)
        self._fetch_again()

    def _sort(self, part: RetryPartition, record: Record) -> None:
        try:
            info = decode_retry(record)
        except Malformed as why:
            self.malformed_count += 1
            logger.bind(topic=record.topic, partition=record.partition, offset=record.offset).warning(
                "not a retry record, dead-lettered: {}", why
            )
            source, letter = malformed_letter(self._settings.group_id, record, why)
            sequence = self._parts.writes.dead_letter(self._topic, source, letter)
            self._write(part, sequence, partial(part.ledger.complete, record.offset))
            return
        if info.id.group != self._settings.group_id or info.id.topic != self._topic.names.source:
            part.ledger.complete(record.offset)
        else:
            part.wait_for_lock(record, info)

    def _suspect_truncation(self, part: RetryPartition) -> None:
        """A lock that does not come: does the log end before it?"""
        wanted = part.oldest_lock_wanted
        if wanted is None:
            self._waiting_since.pop(part.place, None)
            return
        known, since = self._waiting_since.setdefault(part.place, (wanted, self._clock.monotonic()))
        if known != wanted:
            self._waiting_since[part.place] = (wanted, self._clock.monotonic())
        elif self._clock.monotonic() - since >= TRUNCATION_SUSPECTED_S:
            self._waiting_since[part.place] = (wanted, self._clock.monotonic())
            looked_up = self._background.submit(self._parts.end_of, part.redirect)
            looked_up.add_done_callback(
                lambda done: self._inbox.put(partial(self._judge_truncation, part, wanted, done))
            )

    def _judge_truncation(self, part: RetryPartition, wanted: int, looked_up: Future[int]) -> None:
        if looked_up.cancelled() or looked_up.exception() is not None or part.leaving:
            return  # no broker answered: ask again later
        if (end := looked_up.result()) <= wanted:
            raise LogTruncatedError(part.redirect.topic, part.redirect.partition, wanted, end)

    def _fetch_again(self) -> None:
        wanted = {p.place: dict(p.schedule.wanted()) for p in self._partitions.values() if p.schedule.wanted()}
        if not wanted:
            return
        for place, held, record in self._refetcher.fetch(wanted, timedelta(milliseconds=20)):
            with self._state.mutex:
                part = self._partitions[place]
                if part.schedule.held.get(held.place) is held and held.record is None:
                    part.schedule.load(held, record)

    def _wait(self) -> timedelta:
        """Until the next due time at most; briefly while an outcome is awaited that may free the next of a chain."""
        if not self._inbox.empty():
            self._busy_wait_s = BUSY_WAIT_S
            return timedelta(0)
        wait_s, now_ms = IDLE_WAIT_S, self._clock.now_ms()
        if self._handovers or any(
            p.open_work or p.waiting_count or p.schedule.wanted() for p in self._partitions.values()
        ):
            wait_s = self._busy_wait_s
            self._busy_wait_s = min(2 * wait_s, BUSY_WAIT_AT_MOST_S)  # a handler that takes long is asked less often
        for part in self._partitions.values():
            wake_ms = part.schedule.next_wake_ms()
            if wake_ms is not None:
                wait_s = min(wait_s, max(0.0, (max(wake_ms, part.not_before_ms) - now_ms) / 1000))
        return timedelta(seconds=wait_s)

    # Running

    def _start_due(self) -> None:
        now_ms = self._clock.now_ms()
        for part in tuple(self._partitions.values()):
            if part.leaving or not part.claim.ready:
                continue
            with self._state.mutex:
                due = [] if now_ms < part.not_before_ms else part.schedule.pop_due(now_ms)
                jobs = [(held, entry) for held in due if (entry := part.entry_of(held)) is not None]
                parks = [(held, part.entry_of(held)) for held in _drained(part.schedule.to_park)]
                dead = [
                    (place, part.table.source(place[0]).entries.get(place[1]))
                    for place in _drained(part.schedule.to_release)
                ]
            for held, entry in jobs:
                self._start(part, held, entry)
            for held, entry in parks:
                if entry is not None:
                    self._park(part, held, entry)
            for (partition, offset), entry in dead:
                if entry is not None:
                    id = MessageId(self._settings.group_id, self._topic.names.source, partition, offset)
                    self._write(part, self._parts.writes.tombstone(self._topic, id, entry.key), _nothing)

    def _start(self, part: RetryPartition, held: Held, entry: Entry) -> None:
        source = self._source(held)
        view = SourceView(source, entry, self._settings.max_retries)
        part.open_work += 1
        self._workers.submit(partial(self._run, part, held, view))

    def _run(self, part: RetryPartition, held: Held, view: SourceView) -> None:
        """On a worker."""
        if part.leaving or self._stopping:
            self._inbox.put(partial(self._no_outcome, part, held))
            return
        try:
            result = self._handler(view)
            future = None if result is None else future_of(result)
        except BaseException as error:
            self._inbox.put(partial(self._failed, part, held, error))
            return
        if future is None:
            self._inbox.put(partial(self._succeeded, part, held))
        else:
            self._inbox.put(partial(self._await, part, held, future))

    def _work_inbox(self, wait_s: float | None = None) -> None:
        try:
            if wait_s is not None:
                self._inbox.get(timeout=wait_s)()
            while True:
                self._inbox.get_nowait()()
        except Empty:
            pass

    # Outcomes, on the loop's thread

    def _await(self, part: RetryPartition, held: Held, future: Future[Any]) -> None:
        part.futures.add(future)
        if part.leaving:
            future.cancel()
        future.add_done_callback(lambda done: self._inbox.put(partial(self._future_ended, part, held, done)))

    def _future_ended(self, part: RetryPartition, held: Held, future: Future[Any]) -> None:
        part.futures.discard(future)
        if has_no_outcome(future):
            self._no_outcome(part, held)
        elif (error := future.exception()) is not None:
            self._failed(part, held, error)
        else:
            self._succeeded(part, held)

    def _no_outcome(self, part: RetryPartition, held: Held) -> None:
        """It did not run to an end: no attempt is counted."""
        part.open_work -= 1
        if not self._gone(part):
            with self._state.mutex:
                part.put_back(held)

    def _succeeded(self, part: RetryPartition, held: Held) -> None:
        part.open_work -= 1
        if not self._gone(part):
            source = self._source(held)
            self._write(
                part, self._parts.writes.tombstone(self._topic, source.id, source.key), partial(self._drop, part, held)
            )

    def _failed(self, part: RetryPartition, held: Held, error: BaseException) -> None:
        if isinstance(error, Pause):
            part.not_before_ms = self._clock.now_ms() + int(error.retry_in.total_seconds() * 1000)
            self._no_outcome(part, held)
            return
        if not isinstance(error, Exception):  # SystemExit, KeyboardInterrupt: stop, and count nothing
            self._no_outcome(part, held)
            raise error
        part.open_work -= 1
        if self._gone(part):
            return
        with self._state.mutex:
            entry = part.entry_of(held)
        if entry is None:  # somebody ended it meanwhile
            self._drop(part, held)
            return
        failures, now_ms = entry.attempt + 1, self._clock.now_ms()
        retriable = self._settings.is_retriable(error)
        retry = retriable and not exhausted(failures, self._settings.max_retries)
        due_ms = due_after(error, failures, self._settings.backoff, now_ms) if retry else now_ms
        entry = entry.failed(due_ms=due_ms, now_ms=now_ms, error_type=type(error).__name__, error=str(error))
        source = self._source(held)
        log = logger.bind(
            topic=source.id.topic,
            partition=source.id.partition,
            offset=source.id.offset,
            attempt=failures,
            error_type=entry.error_type,
        )
        if retry:
            log.debug("retry failed, the next is due in {} ms", due_ms - now_ms)
            self._write(
                part, self._parts.writes.entry(self._topic, source.id, entry), partial(self._put_back, part, held)
            )
            return
        log.warning("dead-lettered after {} executions", failures)
        state = DeadLetterState.EXHAUSTED if retriable else DeadLetterState.NOT_RETRIABLE
        why = DeadLetter(state, failures, entry.error_type, entry.error, entry.first_failure_ms)
        self._write(
            part,
            self._parts.writes.die(self._topic, source, replace(entry, key=source.key), why, locked=True),
            partial(self._drop, part, held),
        )

    def _park(self, part: RetryPartition, held: Held, entry: Entry) -> None:
        self._write(
            part, self._parts.writes.park(self._topic, self._source(held), entry), partial(self._drop, part, held)
        )

    def _write(self, part: RetryPartition, sequence: Sequence[Any], then: Callable[[], object]) -> None:
        """Start the writes; `then` once they are durable. One that fails ends the loop: nothing is guessed."""
        part.open_work += 1
        written = self._parts.sequencer.run(sequence)
        written.add_done_callback(lambda done: self._inbox.put(partial(self._written, part, done, then)))

    def _written(self, part: RetryPartition, written: Future[Any], then: Callable[[], object]) -> None:
        part.open_work -= 1
        written.result()  # raises
        if not self._gone(part):
            then()

    def _drop(self, part: RetryPartition, held: Held) -> None:
        with self._state.mutex:
            part.drop(held)

    def _put_back(self, part: RetryPartition, held: Held) -> None:
        with self._state.mutex:
            part.put_back(held)

    def _gone(self, part: RetryPartition) -> bool:
        return self._partitions.get(part.place) is not part

    def _source(self, held: Held) -> SourceRecord:
        if held.record is None:
            raise RuntimeError("a record without its payload is never under way")
        return source_of(held.record, decode_retry(held.record))

    # Bounds, commits, housekeeping

    def _keep_bounds(self) -> None:
        for part in self._partitions.values():
            if part.schedule.full:
                with self._state.mutex:
                    part.schedule.shed(self._clock.now_ms())
            if part.schedule.full and not part.full:
                part.full = True
                self._consumer.pause([part.place])
            elif part.full and part.schedule.below_half:
                part.full = False
                self._consumer.resume([part.place])

    def _commit_if_due(self) -> None:
        if self._clock.monotonic() >= self._next_commit:
            self._commit()

    def _commit(self) -> None:
        self._next_commit = self._clock.monotonic() + COMMIT_EVERY_S
        offsets = {p.place: offset for p in self._partitions.values() if (offset := p.to_commit()) is not None}
        if not offsets:
            return
        try:
            self._consumer.commit(offsets)
        except NotOwnerError as error:
            logger.debug("retry offsets not committed, a rebalance is under way: {}", error)
        except ClientError as error:
            if not error.retriable:
                raise
            logger.warning("retry offsets not committed, trying again: {}", error)
        else:
            for place, offset in offsets.items():
                self._partitions[place].committed = offset.next_offset

    def _look_for_orphans(self) -> None:
        for place, check in self._checks.items():
            part = self._partitions[place]
            if part.leaving or not part.claim.ready:
                continue
            if not check.step(self._background, self._consumer.position(place), partial(self._locked, part)):
                continue
            with self._state.mutex:
                part.admit()
                orphans = list(part.orphans_below(check.committed))
            for partition, offset, entry in orphans:
                id = MessageId(self._settings.group_id, self._topic.names.source, partition, offset)
                self.orphan_count += 1
                logger.bind(topic=id.topic, partition=partition, offset=offset).warning(
                    "orphan: its record never reached the retry topic; its key is freed"
                )
                self._write(part, self._parts.writes.tombstone(self._topic, id, entry.key), _nothing)
            check.finished(len(orphans))

    def _locked(self, part: RetryPartition) -> int:
        with self._state.mutex:
            return sum(len(locks.entries) for locks in part.table.sources.values())

    def _purge_if_due(self) -> None:
        now = self._clock.monotonic()
        if now < self._next_purge or (self._purging is not None and not self._purging.done()):
            return
        if self._next_purge:
            self._purging = self._background.submit(self._purge.run_all, tuple(self._partitions.values()))
        self._next_purge = now + PURGE_EVERY_S


def _drained(queue: Any) -> list[Any]:
    drained = list(queue)
    queue.clear()
    return drained


def _nothing() -> None:
    pass
