"""The retry loop: reads one retry topic, runs what is due, commits what has ended.

    poll ─> admit ─> schedule ─> workers ─> outcome ─> writes ─> complete ─> commit
             (waits for its lock)  (handler)            (acknowledged)

One thread owns all of it. A step never waits longer than until the next due time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Executor, Future
from datetime import timedelta
from functools import partial
from typing import Any

from loguru import logger

from kafetrain.client.ports import ClientError, ConsumerPort
from kafetrain.core.entry import State
from kafetrain.core.headers import Malformed, decode_retry
from kafetrain.errors import LogTruncatedError
from kafetrain.ownership import Ownership
from kafetrain.record import Handler, Record, TopicPartition
from kafetrain.retry.controls import Controls
from kafetrain.retry.orphans import OrphanCheck
from kafetrain.retry.outcomes import Outcomes
from kafetrain.retry.partition import RetryPartition
from kafetrain.retry.purge import Purge
from kafetrain.retry.refetch import Refetcher
from kafetrain.threads import Workers
from kafetrain.topic_setup import PreparedTopics
from kafetrain.tracker.parts import Parts
from kafetrain.tracker.state import Side, TrackerState

__all__ = ["RetryLoop"]

IDLE_WAIT_S = 0.1
BUSY_WAIT_S = 0.002
BUSY_WAIT_AT_MOST_S = 0.016
COMMIT_TAKES_MS = 20
"""At most, where nothing is wrong: retries that come due meanwhile go first."""
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
        self._name, self._consumer, self._background = topic.names.source, consumer, background
        self._parts, self._state = parts, state
        self._settings, self._clock = parts.settings, parts.clock
        self._outcomes = Outcomes(self._name, handler, workers, parts, state)
        patience_s = self._settings.shutdown_timeout.total_seconds()
        self._owned = Ownership[RetryPartition](
            consumer, self._clock, patience_s, self._claim, self._release, partial(state.lose, Side.RETRY)
        )
        self._transactor = parts.transactor(consumer, self._owned.carrying)
        self._open_reader, self._refetcher = open_reader, Refetcher(open_reader)
        self._purge = Purge(parts, state)
        self._purging: Future[None] | None = None
        self._next_purge = self._clock.monotonic() + PURGE_EVERY_S
        self._busy_wait_s = BUSY_WAIT_S
        consumer.subscribe([topic.names.retry], self._owned)
        if self._transactor is not None:
            self._transactor.start()

    def step(self) -> None:
        self._state.check()
        self._owned.take_events()
        self._take_over()
        wait_s, busy = self._wait()
        self._read(0.0 if busy else wait_s)
        self._fetch_again()
        if self._outcomes.settle(wait_s if busy else None):
            self._busy_wait_s = BUSY_WAIT_S
        self._start_due()
        self._owned.answer_handovers()
        self._keep_bounds()
        self._owned.commit_if_due(pressed=self._is_next_due_within(COMMIT_TAKES_MS))
        self._look_for_orphans()
        self._purge_if_due()

    def close(self) -> None:
        """Start nothing more, let running handlers end, commit, leave the group. Bounded by `shutdown_timeout`.

        Raises what has failed meanwhile; that keeps nothing else from its end.
        """
        failures: list[BaseException] = []
        try:
            self._owned.close(partial(self._settle_on, failures))
        finally:
            if self._transactor is not None:
                self._transactor.stop()
            self._refetcher.close()
        if failures:
            raise failures[0]

    def _settle_on(self, failures: list[BaseException]) -> None:
        try:
            self._outcomes.settle(0.02)
        except BaseException as error:
            failures.append(error)

    # Whose partitions

    def _claim(self, places: Collection[TopicPartition]) -> None:
        topic = self._state.topic(self._name)
        self._state.claim(Side.RETRY, topic, [place.partition for place in places], path=self._transactor)

    def _release(self, places: Collection[TopicPartition], gone: Collection[RetryPartition]) -> None:
        for part in gone:
            part.close()
        if self._name in self._state.topics:
            self._state.release(Side.RETRY, self._state.topic(self._name), {place.partition for place in places})

    def _take_over(self) -> None:
        """Begin with assigned partitions whose locks are restored."""
        for place in tuple(self._owned.awaited):
            claim = self._state.retry_claims.get(place)
            if claim is None or claim.redirect is None:
                continue
            if claim.error is not None:
                raise claim.error
            if not claim.ready or (position := self._consumer.position(place)) is None:
                continue
            table = self._state.tables[claim.redirect]
            part = RetryPartition(place, claim, table, position, self._state, self._settings)
            part.orphans = OrphanCheck(part, self._parts.admin, self._settings.group_id, self._clock)
            part.operator = Controls(
                part, self._outcomes, self._parts, self._state, self._background, self._open_reader
            )
            self._owned.begin(part)
        for part in self._owned:
            if part.claim.error is not None:  # since then the log has shown what we cannot read
                raise part.claim.error

    # Reading

    def _read(self, wait_s: float) -> None:
        for place, records in self._consumer.poll(timedelta(seconds=wait_s)).items():
            if (part := self._owned.partitions.get(place)) is None:
                self._owned.put_back(place, records[0].offset)
                continue
            for record in records:
                part.ledger.begin(record.offset)
                self._sort(part, record)
        if self._transactor is not None:
            self._pass_markers()
        with self._state.mutex:
            for part in self._owned:
                if part.claim.ready:
                    part.admit()
                    part.complete_ended()
        for part in self._owned:
            self._suspect_truncation(part)

    def _pass_markers(self) -> None:
        """Transactions end with a marker, which is no record: without this a partition would always seem to lag."""
        for part in self._owned:
            if (position := self._consumer.position(part.place)) is not None:
                part.ledger.begin_to(position)

    def _sort(self, part: RetryPartition, record: Record) -> None:
        try:
            info = decode_retry(record)
        except Malformed as why:
            with self._state.mutex:
                self._state.malformed[part.place] += 1
            logger.bind(topic=record.topic, partition=record.partition, offset=record.offset).warning(
                "not a retry record, dead-lettered: {}", why
            )
            self._outcomes.bury_malformed(part, record, why)
            return
        if info.id.group != self._settings.group_id or info.id.topic != self._name:
            part.ledger.complete(record.offset)
        else:
            part.wait_for_lock(record, info)

    def _suspect_truncation(self, part: RetryPartition) -> None:
        """A lock that does not come: does the log end before it?"""
        wanted, now = part.oldest_lock_wanted, self._clock.monotonic()
        if wanted is None or part.waits_for[0] != wanted:
            part.waits_for = (wanted, now)
        elif now - part.waits_for[1] >= TRUNCATION_SUSPECTED_S:
            part.waits_for = (wanted, now)
            looked_up = self._background.submit(self._parts.end_of, part.redirect)
            looked_up.add_done_callback(
                lambda done: self._outcomes.inbox.put(partial(self._judge_truncation, part, wanted, done))
            )

    def _judge_truncation(self, part: RetryPartition, wanted: int, looked_up: Future[int]) -> None:
        if looked_up.cancelled() or looked_up.exception() is not None or part.leaving:
            return  # no broker answered: ask again later
        if (end := looked_up.result()) <= wanted:
            raise LogTruncatedError(part.redirect.topic, part.redirect.partition, wanted, end)

    def _fetch_again(self) -> None:
        if not any(part.schedule.wants for part in self._owned):
            return
        with self._state.mutex:
            wanted = {part.place: found for part in self._owned if (found := part.schedule.wanted())}
        if not wanted:
            return
        try:
            fetched = list(self._refetcher.fetch(wanted, timedelta(milliseconds=20)))
        except ClientError as error:
            if not error.retriable:
                raise
            logger.warning("records not fetched again, trying on: {}", error)
            return
        for place, held, record in fetched:
            with self._state.mutex:
                self._owned.partitions[place].load(held, record)

    def _wait(self) -> tuple[float, bool]:
        """How long, and whether for outcomes: until the next due time at most.

        A poll cannot be woken and the inbox can. So where an outcome is awaited that may free the next of a chain, the
        wait is at the inbox, and short, since records arrive meanwhile; else it is in the poll.
        """
        wait_s, busy = IDLE_WAIT_S, self._owned.leaving
        now, now_ms = self._clock.monotonic(), self._clock.now_ms()
        if busy or any(p.open_work or p.waiting_count or p.schedule.wants for p in self._owned):
            busy, wait_s = True, self._busy_wait_s
            self._busy_wait_s = min(2 * wait_s, BUSY_WAIT_AT_MOST_S)  # a handler that takes long is asked less often
        for part in self._owned:
            wake_ms = part.schedule.next_wake_ms()
            if wake_ms is not None and not part.leaving and part.claim.ready:
                wait_s = min(wait_s, max(0.0, (wake_ms - now_ms) / 1000, part.paused_until - now))
        return wait_s, busy

    def _is_next_due_within(self, ms: int) -> bool:
        until_ms = self._clock.now_ms() + ms
        return any(
            (wake_ms := part.schedule.next_wake_ms()) is not None and wake_ms <= until_ms for part in self._owned
        )

    # Running

    def _start_due(self) -> None:
        for part in self._owned:
            if part.leaving or not part.claim.ready:
                continue
            is_paused, now_ms = self._clock.monotonic() < part.paused_until, self._clock.now_ms()
            with self._state.mutex:
                due = [] if is_paused else part.schedule.pop_due(now_ms)
                runs = [(held, part.entry_of(held)) for held in due]
                parks = [(held, part.entry_of(held)) for held in part.take_parks()]
                dead = [
                    (place, part.table.source(place[0]).entries.get(place[1]))
                    for place in _drained(part.schedule.to_release)
                ]
            for held, entry in runs:
                if entry is not None:
                    self._outcomes.run(part, held, entry)
            for held, entry in parks:
                if entry is not None:
                    self._outcomes.park(part, held, entry)
            for (partition, offset), entry in dead:
                if entry is not None and entry.state is State.DEAD:  # else it is replayed by now
                    self._outcomes.free(part, partition, offset, entry.key)
            if part.operator is not None:
                part.operator.step()

    # Bounds and housekeeping

    def _keep_bounds(self) -> None:
        for part in self._owned:
            if part.schedule.crowded:
                with self._state.mutex:
                    part.schedule.shed(self._clock.now_ms())
            waiting, most = part.waiting_count, self._settings.max_held_records
            if (part.schedule.full or waiting >= most) and not part.full:
                part.full = True
                self._consumer.pause([part.place])
            elif part.full and part.schedule.below_half and waiting * 2 < most:
                part.full = False
                self._consumer.resume([part.place])

    def _look_for_orphans(self) -> None:
        for part in self._owned:
            check = part.orphans
            if check is None or part.leaving or not part.claim.ready:
                continue
            if part.replaying:
                check.drop()  # what it noted, or is about to, may be older than the records of the new locks
                continue
            if not check.step(self._background, self._consumer.position(part.place), partial(self._locked, part)):
                continue
            with self._state.mutex:
                part.admit()
                orphans = check.look()
                self._state.orphans.update(TopicPartition(self._name, partition) for partition, _, _ in orphans)
            for partition, offset, entry in orphans:
                logger.bind(topic=self._name, partition=partition, offset=offset).warning(
                    "orphan: its record never reached the retry topic; its key is freed"
                )
                self._outcomes.free(part, partition, offset, entry.key)

    def _locked(self, part: RetryPartition) -> int:
        with self._state.mutex:
            return sum(len(locks.entries) for locks in part.table.sources.values())

    def _purge_if_due(self) -> None:
        now = self._clock.monotonic()
        if now >= self._next_purge and (self._purging is None or self._purging.done()):
            self._next_purge = now + PURGE_EVERY_S
            self._purging = self._background.submit(self._purge.run_all, tuple(self._owned))


def _drained(queue: Any) -> list[Any]:
    drained = list(queue)
    queue.clear()
    return drained
