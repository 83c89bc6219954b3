"""Retry records in a loop of one's own: the retry path for applications that read the retry topic themselves.

Such a loop commits record after record, so a record that has to wait is appended to the retry topic again. That keeps
the order, since a chain is ordered by source offset and not by where its records stand. What waits for its time is
not appended again and again: `defer` pauses its partition until then. So the loop waits for its head-most record, where
a `RetryManager` runs whatever is due.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from loguru import logger
from msgspec import structs

from kafetrain.clock import Clock
from kafetrain.core.chain import chain_key
from kafetrain.core.control import Action, Control, audit_headers
from kafetrain.core.entry import Entry, State
from kafetrain.core.headers import DeadLetterState, Malformed, RetryInfo, decode_retry
from kafetrain.core.rules import due_after, exhausted, runnable_head, to_park
from kafetrain.errors import LogTruncatedError, NotTrackedError, PartitionLostError, Pause, text_of_error
from kafetrain.handlers import future_of
from kafetrain.outcome import Outcome
from kafetrain.record import Handler, MessageId, Record, TopicPartition
from kafetrain.settings import Settings
from kafetrain.topic_setup import PreparedTopics
from kafetrain.tracker.sequence import Sequence, Sequencer
from kafetrain.tracker.state import Claim, Side, TrackerState
from kafetrain.tracker.writes import DeadLetter, SourceRecord, Writes, payload

__all__ = ["OwnRetryLoop", "malformed_letter", "source_of"]


def source_of(record: Record, info: RetryInfo) -> SourceRecord:
    """The source record that a retry record carries."""
    value = None if info.null_value else payload(record, "value")
    key, own = payload(record, "key"), info.user_headers
    return SourceRecord(info.id, key, value, own, info.timestamp_ms, given=record, transform=info.transform)


def malformed_letter(group: str, record: Record, why: Malformed) -> tuple[SourceRecord, DeadLetter]:
    """A record of the retry topic that is none: it goes to the dead-letter topic as it is, named by its place."""
    id = MessageId(group, record.topic, record.partition, record.offset)
    source = SourceRecord(
        id, payload(record, "key"), payload(record, "value"), tuple(record.headers or ()), record.timestamp
    )
    return source, DeadLetter(DeadLetterState.MALFORMED, 0, "Malformed", str(why))


@dataclass(frozen=True, slots=True)
class _Found:
    """A retry record of ours, and what the table says of it. `entry` None: it has ended."""

    claim: Claim
    info: RetryInfo
    source: SourceRecord
    entry: Entry | None
    head: int | None
    """The id that may run next of its chain; None where the key is dead."""
    head_due_ms: int
    is_next_to_park: bool


class OwnRetryLoop:
    """Any thread; records of one key one after the other."""

    def __init__(
        self,
        state: TrackerState,
        writes: Writes,
        sequencer: Sequencer,
        settings: Settings,
        clock: Clock,
        end_of: Callable[[TopicPartition], int],
    ) -> None:
        self._state, self._writes, self._sequencer = state, writes, sequencer
        self._settings, self._clock, self._end_of = settings, clock, end_of

    def may_not_run(self, record: Record, topic: PreparedTopics) -> bool:
        """Is it anything else than the head of its chain?"""
        found = self._find(record, topic)
        return found is None or found.entry is None or found.head != found.info.id.offset

    def due_ms(self, record: Record, topic: PreparedTopics) -> int:
        """When its chain's head may run; 0 where it need not wait (it has ended, or its key is dead)."""
        found = self._find(record, topic)
        return 0 if found is None or found.entry is None or found.head is None else found.head_due_ms

    def process(self, record: Record, topic: PreparedTopics, handler: Handler) -> Outcome:
        """See `ErrorTracker.process`."""
        found = self._find(record, topic)
        if found is not None and found.entry is not None and found.head_due_ms > self._clock.now_ms():
            return Outcome.NOT_DUE
        if found is None or found.entry is None or found.head != found.info.id.offset:
            return self.redirect(record, topic, None).result()
        try:
            result = handler(record)
            future = None if result is None else future_of(result)
            if future is not None:
                future.result()
        except Pause:
            raise
        except Exception as error:
            return self.redirect(record, topic, error).result()
        self.free(record, topic)
        return Outcome.SUCCEEDED

    def redirect(
        self, record: Record, topic: PreparedTopics, error: BaseException | None, *, die: bool = False
    ) -> Future[Outcome]:
        """What `ErrorTracker.redirect_async` does with a retry record."""
        try:
            info = decode_retry(record)
        except Malformed as why:
            return self._sequencer.run(self._bury_malformed(record, topic, why))
        found = self._find(record, topic)
        if found is None or found.entry is None:
            return self._sequencer.run(_already_ended())
        if error is not None and found.head == info.id.offset:
            return self._sequencer.run(self._failed(found, error, die=die))
        if found.is_next_to_park:
            return self._sequencer.run(self._park(found, found.entry))
        return self._sequencer.run(self._append(found, found.entry, Outcome.SIDELINED))

    def free(self, record: Record, topic: PreparedTopics) -> None:
        """Its id's lock ends, where it has one. Returns when durable."""
        found = self._find(record, topic)
        if found is not None and found.entry is not None:
            self._sequencer.run(self._writes.tombstone(topic, found.info.id, found.entry.key)).result()

    def _find(self, record: Record, topic: PreparedTopics) -> _Found | None:
        """None: malformed, or another group's."""
        try:
            info = decode_retry(record)
        except Malformed:
            return None
        if info.id.group != self._settings.group_id or info.id.topic != topic.names.source:
            return None
        claim = self._claim_of(record, topic)
        self._wait_for(claim, info, record)
        source = source_of(record, info)
        if info.control is not None:
            self._obey(topic, claim, info.control, source.key)
            return _Found(claim, info, source, None, None, 0, False)
        if self._settings.free_on_dlq:
            self._release_dead(topic, claim, info, source.key)
        offset = info.id.offset
        with self._state.mutex:
            table = self._state.tables.get(claim.redirect) if claim.redirect is not None else None
            if table is None:
                raise NotTrackedError(f"{record.topic}[{record.partition}]")
            locks = table.source(info.id.partition)
            locks.repair(offset, source.key, info.attempt, info.due_ms)
            entry = locks.entries.get(offset)
            chain = locks.chains.get(chain_key(source.key, offset))
            if entry is None or chain is None or entry.state is State.DEAD:
                return _Found(claim, info, source, None, None, 0, False)
            head = runnable_head(locks, chain)
            due_ms = 0 if head is None else locks.entries[head].due_ms
            return _Found(claim, info, source, entry, head, due_ms, to_park(locks, chain) == offset)

    def _obey(self, topic: PreparedTopics, claim: Claim, control: Control, key: bytes | None) -> None:
        """What operators ask for a key: here only what one write does."""
        with self._state.mutex:
            table = self._state.tables.get(claim.redirect) if claim.redirect is not None else None
            entry = None if table is None else table.source(control.id.partition).entries.get(control.id.offset)
        headers, now_ms = audit_headers(control.audit), self._clock.now_ms()
        if control.action == Action.RELEASE:
            if entry is not None and entry.state is State.DEAD:
                self._sequencer.run(self._writes.tombstone(topic, control.id, key, headers)).result()
        elif control.action == Action.RETRY_NOW:
            if entry is not None and entry.state is State.PENDING and entry.due_ms > now_ms:
                due = structs.replace(entry, due_ms=now_ms, log_offset=-1)
                self._sequencer.run(self._writes.entry(topic, control.id, due, headers)).result()
        else:
            logger.bind(topic=control.id.topic, partition=control.id.partition, offset=control.id.offset).error(
                "control record {!r} passed over: a loop of one's own cannot do that, a RetryManager can",
                control.action,
            )

    def _release_dead(self, topic: PreparedTopics, claim: Claim, info: RetryInfo, key: bytes | None) -> None:
        """Dead keys are freed now, and were not when this one died: end its lock, so that what waits may run."""
        while True:
            with self._state.mutex:
                table = self._state.tables.get(claim.redirect) if claim.redirect is not None else None
                locks = None if table is None else table.source(info.id.partition)
                chain = None if locks is None else locks.chains.get(chain_key(key, info.id.offset))
                if locks is None or chain is None or not chain.open or runnable_head(locks, chain) is not None:
                    return
                head = chain.open[0]
            dead = info.id._replace(offset=head)
            self._sequencer.run(self._writes.tombstone(topic, dead, key)).result()

    def _claim_of(self, record: Record, topic: PreparedTopics) -> Claim:
        return self._state.ready_claim(Side.RETRY, TopicPartition(topic.names.retry, record.partition))

    def _wait_for(self, claim: Claim, info: RetryInfo, record: Record) -> None:
        """Until the table has applied the redirect record that this one's lock is."""
        redirect = claim.redirect
        if redirect is None:
            raise NotTrackedError(f"{record.topic}[{record.partition}]")
        deadline = self._clock.monotonic() + self._settings.state_restore_timeout.total_seconds()
        with self._state.changed:
            while (table := self._state.tables.get(redirect)) is None or table.next_offset <= info.lock_offset:
                self._state.check()
                if claim.error is not None:
                    raise claim.error
                if claim.released or self._clock.monotonic() > deadline:
                    break
                self._state.changed.wait(timeout=0.5)
            else:
                return
        end = self._end_of(redirect)
        if info.lock_offset >= end:
            raise LogTruncatedError(redirect.topic, redirect.partition, info.lock_offset, end)
        raise NotTrackedError(f"{record.topic}[{record.partition}]")

    def _failed(self, found: _Found, error: BaseException, *, die: bool) -> Sequence[Outcome]:
        entry, now_ms = found.entry, self._clock.now_ms()
        if entry is None:
            return Outcome.ALREADY_ENDED
        failures = entry.attempt + 1
        retriable = not die and self._settings.is_retriable(error)
        retry = retriable and not exhausted(
            failures, self._settings.max_retries, entry.first_failure_ms, now_ms, self._settings.maximum_attempts_age
        )
        due_ms = due_after(error, failures, self._settings.backoff, now_ms) if retry else now_ms
        entry = entry.failed(due_ms=due_ms, now_ms=now_ms, error_type=type(error).__name__, error=text_of_error(error))
        if retry:
            entry = yield from self._writes.entry(found.claim.topic, found.info.id, entry)
            return (yield from self._append(found, entry, Outcome.REDIRECTED))
        state = DeadLetterState.EXHAUSTED if retriable else DeadLetterState.NOT_RETRIABLE
        why = DeadLetter(state, failures, entry.error_type, entry.error, entry.first_failure_ms)
        ours = partial(_check_ours, found)
        yield from self._writes.die(found.claim.topic, found.source, entry, why, ours, locked=True, error=error)
        return Outcome.DEAD_LETTERED

    def _append(self, found: _Found, entry: Entry, outcome: Outcome) -> Sequence[Outcome]:
        entry = structs.replace(entry, key=found.source.key)
        yield from self._writes.retry_record(found.claim.topic, found.source, entry)
        return outcome

    def _park(self, found: _Found, entry: Entry) -> Sequence[Outcome]:
        yield from self._writes.park(found.claim.topic, found.source, entry)
        return Outcome.PARKED

    def _bury_malformed(self, record: Record, topic: PreparedTopics, why: Malformed) -> Sequence[Outcome]:
        with self._state.mutex:
            self._state.malformed[TopicPartition(record.topic, record.partition)] += 1
        logger.bind(topic=record.topic, partition=record.partition, offset=record.offset).warning(
            "not a retry record, dead-lettered: {}", why
        )
        source, letter = malformed_letter(self._settings.group_id, record, why)
        yield from self._writes.dead_letter(topic, source, letter)
        return Outcome.DEAD_LETTERED


def _check_ours(found: _Found) -> None:
    if found.claim.released:
        raise PartitionLostError(f"{found.source}: its retry partition went to another instance")


def _already_ended() -> Sequence[Outcome]:
    return Outcome.ALREADY_ENDED
    yield
