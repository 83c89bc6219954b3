"""The source path: what becomes of a record that was consumed from its own topic.

Where a partition holds no locks at all, a record costs two dictionary look-ups. Otherwise the rules decide, with the
mutex held. Records of one key must come here one after the other; the next may come before the redirect of the one
before is durable, and then waits for its entry: a later entry in the log has to prove that every earlier one is there.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from loguru import logger

from kafetrain.clock import Clock
from kafetrain.core.chain import ChainKey, chain_key
from kafetrain.core.entry import Entry
from kafetrain.core.headers import DeadLetterState
from kafetrain.core.rules import SourceStep, due_after, exhausted, source_step
from kafetrain.errors import PartitionLostError, Pause, text_of_error
from kafetrain.futures import LightFuture, copy_outcome
from kafetrain.handlers import Following, future_of
from kafetrain.outcome import Outcome
from kafetrain.record import Handler, MessageId, Record, TopicPartition
from kafetrain.settings import Settings
from kafetrain.tracker.sequence import Sequence, Sequencer
from kafetrain.tracker.state import Claim, Side, TrackerState
from kafetrain.tracker.write_path import Work, WritePath
from kafetrain.tracker.writes import DeadLetter, SourceRecord, Writes, payload

__all__ = ["Pending", "SourcePath"]


class Pending(NamedTuple):
    """Not durable yet. `outcome`: what it will be, None where a handler's own future decides that."""

    outcome: Outcome | None
    done: Future[Outcome]


class SourcePath:
    """Any thread; records of one key one after the other."""

    def __init__(
        self, state: TrackerState, writes: Writes, sequencer: Sequencer, settings: Settings, clock: Clock
    ) -> None:
        self._state, self._writes, self._sequencer = state, writes, sequencer
        self._settings, self._clock = settings, clock

    def may_not_run(self, record: Record) -> bool:
        """Is it, or an earlier record of its key, in retry or dead? Or has it ended already?"""
        claim = self.claim_of(record)
        key = chain_key(payload(record, "key"), record.offset)
        with self._state.mutex:
            return key in claim.writing or self._step(claim, key, record.offset) is not SourceStep.RUN

    def submit(self, record: Record, handler: Handler) -> Outcome | Pending:
        """Run the handler if the record may run, and do what follows from its outcome.

        Raises on: `Pause`, and what is no `Exception` (`KeyboardInterrupt`, `SystemExit`); then nothing was written.
        """
        claim = self._state.source_claims.get((record.topic, record.partition))  # type: ignore[call-overload]  # a TopicPartition is such a tuple; building one would cost more than the look-up
        if claim is None or not claim.is_calm():
            claim = self.claim_of(record)
            key = chain_key(payload(record, "key"), record.offset)
            with self._state.mutex:
                free = key not in claim.writing and self._step(claim, key, record.offset) is SourceStep.RUN
            if not free:
                return self._start(claim, record, None)
        try:
            result = handler(record)
            future = None if result is None else future_of(result)
        except Pause:
            raise
        except Exception as error:
            return self._start(claim, record, error)
        if future is None:
            return Outcome.SUCCEEDED
        return Pending(None, self._when_done(claim, record, future))

    def redirect(self, record: Record, error: BaseException | None) -> Pending:
        """Put the record into its key's chain, or complete it where it has ended; see `ErrorTracker.redirect_async`."""
        return self._start(self.claim_of(record), record, error)

    def bury(self, record: Record, error: BaseException) -> Pending:
        """The record becomes a dead letter, whatever kind of error this is."""
        return self._start(self.claim_of(record), record, error, die=True)

    def claim_of(self, record: Record) -> Claim:
        """The claim on the record's partition; waits until its locks are restored."""
        return self._state.ready_claim(Side.SOURCE, TopicPartition(record.topic, record.partition))

    def _step(self, claim: Claim, key: ChainKey, offset: int) -> SourceStep:
        return source_step(claim.locks, claim.locks.chains.get(key), offset)

    def _start(self, claim: Claim, record: Record, error: BaseException | None, *, die: bool = False) -> Pending:
        key = chain_key(payload(record, "key"), record.offset)
        source = SourceRecord(
            MessageId(self._settings.group_id, record.topic, record.partition, record.offset),
            payload(record, "key"),
            payload(record, "value"),
            tuple(record.headers or ()),
            record.timestamp,
            given=record,
        )
        with self._state.mutex:
            before = claim.writing.get(key)
            turn = _Turn(claim, key, self._state)
            outcome, sequence = self._decide(claim, source, error, turn, die=die)
            claim.writing[key] = turn.over
            claim.under_way.add(turn)
        if claim.path is not None:
            work = partial(self._decided, claim, source, error, turn, die=die)
            self._run_after(before, claim.path, work, claim, source.id.offset, turn.finish)
            return Pending(outcome, turn)
        if before is not None:
            sequence = self._after(before, claim, source, error, turn, die=die)
        self._sequencer.run(sequence).add_done_callback(turn.finish)
        return Pending(outcome, turn)

    def _decided(
        self, claim: Claim, source: SourceRecord, error: BaseException | None, turn: _Turn, *, die: bool
    ) -> Sequence[Outcome]:
        """What is done in a transaction: decided in each attempt, since an aborted one leaves the table as it was."""
        with self._state.mutex:
            return self._decide(claim, source, error, turn, die=die)[1]

    @staticmethod
    def _run_after(
        before: Future[Any] | None,
        path: WritePath,
        work: Work[Outcome],
        claim: Claim,
        offset: int,
        finish: Callable[[Future[Outcome]], None],
    ) -> None:
        """Never in one transaction with the record before, whose lock the table knows only once that is committed."""

        def run(earlier: Future[Any] | None) -> None:
            if earlier is not None and earlier.exception() is not None:
                finish(earlier)
            else:
                path.run(work, claim, (offset,)).add_done_callback(finish)

        if before is None:
            run(None)
        else:
            before.add_done_callback(run)

    def _after(
        self,
        before: Future[Any],
        claim: Claim,
        source: SourceRecord,
        error: BaseException | None,
        turn: _Turn,
        *,
        die: bool,
    ) -> Sequence[Outcome]:
        yield before  # raises where it failed
        with self._state.mutex:
            _, sequence = self._decide(claim, source, error, turn, die=die)
        return (yield from sequence)

    def _decide(
        self, claim: Claim, source: SourceRecord, error: BaseException | None, turn: _Turn, *, die: bool
    ) -> tuple[Outcome, Sequence[Outcome]]:
        """By the rules, with the mutex held. `error`: the handler ran and failed."""
        key, offset, now_ms = chain_key(source.key, source.id.offset), source.id.offset, self._clock.now_ms()
        step = self._step(claim, key, offset)
        if step is SourceStep.COMPLETE:
            return Outcome.ALREADY_ENDED, _nothing(Outcome.ALREADY_ENDED)
        if step is SourceStep.REPEAT_RETRY_RECORD:
            known = claim.locks.entries[offset]
            if known.atomic:  # its retry record is there as well
                return Outcome.SIDELINED, _nothing(Outcome.SIDELINED)
            if not known.readable:  # its record is here: the later ones of its key must find it
                claim.locks.repair(offset, source.key, known.attempt, known.due_ms)
            return Outcome.SIDELINED, self._repeat(claim, source, known)
        entry = Entry(source.key, due_ms=now_ms)
        if error is None:
            return Outcome.SIDELINED, self._redirect(claim, source, entry, Outcome.SIDELINED, turn)
        retriable = not die and self._settings.is_retriable(error)
        retry = retriable and not exhausted(1, self._settings.max_retries)
        entry = entry.failed(
            due_ms=due_after(error, 1, self._settings.backoff, now_ms) if retry else now_ms,
            now_ms=now_ms,
            error_type=type(error).__name__,
            error=text_of_error(error),
        )
        if retry or step is SourceStep.SIDELINE:
            return Outcome.REDIRECTED, self._redirect(claim, source, entry, Outcome.REDIRECTED, turn)
        state = DeadLetterState.EXHAUSTED if retriable else DeadLetterState.NOT_RETRIABLE
        why = DeadLetter(state, 1, entry.error_type, entry.error, entry.first_failure_ms)
        return Outcome.DEAD_LETTERED, self._die(claim, source, entry, why, error)

    def _redirect(
        self, claim: Claim, source: SourceRecord, entry: Entry, outcome: Outcome, turn: _Turn
    ) -> Sequence[Outcome]:
        _still_ours(claim, source)
        writes = self._writes_of(claim)
        entry = yield from writes.entry(claim.topic, source.id, entry)
        writes.when_durable(turn.end)
        yield from self._append(claim, source, entry)
        writes.when_durable(partial(self._log, source, entry, outcome))
        return outcome

    def _repeat(self, claim: Claim, source: SourceRecord, known: Entry) -> Sequence[Outcome]:
        yield from self._append(claim, source, replace(known, key=source.key))
        return Outcome.SIDELINED

    def _append(self, claim: Claim, source: SourceRecord, entry: Entry) -> Sequence[None]:
        _still_ours(claim, source)
        yield from self._writes_of(claim).retry_record(claim.topic, source, entry)

    def _die(
        self, claim: Claim, source: SourceRecord, entry: Entry, why: DeadLetter, error: BaseException
    ) -> Sequence[Outcome]:
        _still_ours(claim, source)
        ours, writes = partial(_still_ours, claim, source), self._writes_of(claim)
        yield from writes.die(claim.topic, source, entry, why, ours, locked=False, error=error)
        writes.when_durable(partial(self._log, source, entry, Outcome.DEAD_LETTERED))
        return Outcome.DEAD_LETTERED

    def _writes_of(self, claim: Claim) -> Writes:
        return self._writes if claim.path is None else claim.path.writes

    def _log(self, source: SourceRecord, entry: Entry, outcome: Outcome) -> None:
        level = "WARNING" if outcome is Outcome.DEAD_LETTERED else "DEBUG"
        logger.bind(
            topic=source.id.topic,
            partition=source.id.partition,
            offset=source.id.offset,
            attempt=entry.attempt,
            error_type=entry.error_type,
        ).log(level, "record {}", outcome.value)

    def _when_done(self, claim: Claim, record: Record, future: Future[Any]) -> Future[Outcome]:
        """The handler's own future decides: its exception is the handler's failure, a cancellation is no outcome."""
        done = Following(future)

        def settle(ended: Future[Any]) -> None:
            if ended.cancelled():
                done.called_off()
                return
            error = ended.exception()
            if error is None:
                done.set_result(Outcome.SUCCEEDED)
            elif isinstance(error, Pause) or not isinstance(error, Exception):
                done.set_exception(error)
            else:
                try:
                    started = self._start(claim, record, error).done
                except BaseException as failure:  # a backoff policy that fails, say: nobody else would tell
                    done.set_exception(failure)
                else:
                    started.add_done_callback(partial(copy_outcome, into=done))

        future.add_done_callback(settle)
        return done


class _Turn(LightFuture[Outcome]):
    """A record's turn in its chain: over once its entry is in the log, or what else became of it.

    Its writes are done later, which ends the turn itself, a future. A failed one is never over: nothing of its key may
    be written past it.
    """

    def __init__(self, claim: Claim, key: ChainKey, state: TrackerState) -> None:
        super().__init__()
        self._claim, self._key, self._tracked = claim, key, state
        self.over: LightFuture[None] = LightFuture()

    def end(self) -> None:
        with self._tracked.mutex:
            if self._claim.writing.get(self._key) is self.over:
                del self._claim.writing[self._key]
        if not self.over.done():
            self.over.set_result(None)

    def finish(self, ran: Future[Outcome]) -> None:
        """All is written, or something could not be."""
        if (error := ran.exception()) is None:
            self.end()
        elif not self.over.done():
            self.over.set_exception(error)
        with self._tracked.mutex:
            self._claim.under_way.discard(self)
        copy_outcome(ran, self)


def _still_ours(claim: Claim, source: SourceRecord) -> None:
    """Before each write: the next owner is delivered the record again, and may have ended it already."""
    if claim.released:
        raise PartitionLostError(f"{source}: its partition went to another instance before its outcome was written")


def _nothing(outcome: Outcome) -> Sequence[Outcome]:
    return outcome
    yield  # makes it a sequence
