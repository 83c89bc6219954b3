"""The source path: what becomes of a record that was consumed from its own topic.

A record of whose key nothing is known costs a few dictionary look-ups. Otherwise the rules decide, with the mutex held.
Records of one key must come here one after the other; the next may come before the redirect of the one before is
durable, and then waits for its entry: a later entry in the log has to prove that every earlier one is there.
"""

from __future__ import annotations

from concurrent.futures import Future
from functools import partial
from typing import Any, NamedTuple

from loguru import logger
from msgspec import structs

from kafetrain.clock import Clock
from kafetrain.core.chain import chain_key
from kafetrain.core.entry import Entry
from kafetrain.core.headers import DeadLetterState
from kafetrain.core.rules import SourceStep, due_after, exhausted, source_step
from kafetrain.errors import Pause, text_of_error
from kafetrain.futures import copy_outcome
from kafetrain.handlers import Following, future_of
from kafetrain.outcome import Outcome
from kafetrain.record import Handler, MessageId, Record, TopicPartition
from kafetrain.settings import Settings
from kafetrain.tracker.sequence import Sequence, Sequencer
from kafetrain.tracker.state import Claim, Side, TrackerState
from kafetrain.tracker.turn import Turn
from kafetrain.tracker.write_path import WritePath
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
        return not self._is_free(self.claim_of(record), record)

    def submit(self, record: Record, handler: Handler) -> Outcome | Pending:
        """Run the handler if the record may run, and do what follows from its outcome.

        Raises on: `Pause`, and what is no `Exception` (`KeyboardInterrupt`, `SystemExit`); then nothing was written.
        """
        claim = self._state.source_claims.get((record.topic, record.partition))  # type: ignore[call-overload]  # a TopicPartition is such a tuple; building one would cost more than the look-up
        if claim is None or not claim.may_run(record):
            claim = self.claim_of(record)
            if not self._is_free(claim, record):
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
        place = (record.topic, record.partition)
        known = self._state.source_claims.get(place)  # type: ignore[call-overload]  # as in `submit`
        if known is not None and known.ready and known.error is None and self._state.error is None:
            return known  # type: ignore[no-any-return]
        return self._state.ready_claim(Side.SOURCE, TopicPartition(*place))

    def _is_free(self, claim: Claim, record: Record) -> bool:
        key = chain_key(payload(record, "key"), record.offset)
        with self._state.mutex:
            if key in claim.writing:
                return False
            return source_step(claim.locks, claim.locks.chains.get(key), record.offset) is SourceStep.RUN

    def _start(self, claim: Claim, record: Record, error: BaseException | None, *, die: bool = False) -> Pending:
        key = payload(record, "key")
        source = SourceRecord(
            MessageId(self._settings.group_id, record.topic, record.partition, record.offset),
            key,
            payload(record, "value"),
            tuple(record.headers or ()),
            -1 if record.timestamp is None else record.timestamp,  # from before records had one
            given=record,
        )
        turn = Turn(self._state, claim, chain_key(key, record.offset), source, error, die=die)
        with self._state.mutex:
            before = None if (earlier := claim.writing.get(turn.key)) is None else earlier.over()
            outcome, sequence = self._decide(turn)
            claim.writing[turn.key] = turn
            claim.under_way.add(turn)
        if claim.path is not None:
            self._run_after(before, claim.path, turn)
        elif before is not None:
            self._sequencer.run(self._after(before, turn), turn)
        else:
            turn.error = None  # its traceback is a dozen objects, for as long as the writes take
            self._sequencer.run(sequence, turn)
        return Pending(outcome, turn)

    def _run_after(self, before: Future[Any] | None, path: WritePath, turn: Turn) -> None:
        """Never in one transaction with the record before, whose lock the table knows only once that is committed."""

        def run(earlier: Future[Any] | None) -> None:
            if earlier is not None and earlier.exception() is not None:
                # Not here: thousands may wait behind each other, and a stack does not hold as many.
                self._sequencer.run(self._after(earlier, turn), turn)
            else:
                done = path.run(partial(self._decided, turn), turn.claim, (turn.source.id.offset,))
                done.add_done_callback(partial(copy_outcome, into=turn))

        if before is None:
            run(None)
        else:
            before.add_done_callback(run)

    def _decided(self, turn: Turn) -> Sequence[Outcome]:
        """What is done in a transaction: decided in each attempt, since an aborted one leaves the table as it was."""
        with self._state.mutex:
            return self._decide(turn)[1]

    def _after(self, before: Future[Any], turn: Turn) -> Sequence[Outcome]:
        yield before  # raises where it failed
        return (yield from self._decided(turn))

    def _decide(self, turn: Turn) -> tuple[Outcome, Sequence[Outcome]]:
        """By the rules, with the mutex held."""
        claim, source, error = turn.claim, turn.source, turn.error
        locks, offset, now_ms = claim.locks, source.id.offset, self._clock.now_ms()
        step = source_step(locks, locks.chains.get(turn.key), offset)
        if step is SourceStep.COMPLETE:
            return Outcome.ALREADY_ENDED, _nothing(Outcome.ALREADY_ENDED)
        if step is SourceStep.REPEAT_RETRY_RECORD:
            known = locks.entries[offset]
            if known.atomic:  # its retry record is there as well
                return Outcome.SIDELINED, _nothing(Outcome.SIDELINED)
            if not known.readable:  # its record is here: the later ones of its key must find it
                locks.repair(offset, source.key, known.attempt, known.due_ms)
            return Outcome.SIDELINED, self._repeat(turn, known)
        entry = Entry(source.key, due_ms=now_ms)
        if error is None:
            return Outcome.SIDELINED, self._redirect(turn, entry, Outcome.SIDELINED)
        retriable = not turn.die and self._settings.is_retriable(error)
        retry = retriable and not exhausted(1, self._settings.max_retries)
        entry = entry.failed(
            due_ms=due_after(error, 1, self._settings.backoff, now_ms) if retry else now_ms,
            now_ms=now_ms,
            error_type=type(error).__name__,
            error=text_of_error(error),
        )
        if retry or step is SourceStep.SIDELINE:
            return Outcome.REDIRECTED, self._redirect(turn, entry, Outcome.REDIRECTED)
        state = DeadLetterState.EXHAUSTED if retriable else DeadLetterState.NOT_RETRIABLE
        why = DeadLetter(state, 1, entry.error_type, entry.error, entry.first_failure_ms)
        return Outcome.DEAD_LETTERED, self._die(turn, entry, why, error)

    def _redirect(self, turn: Turn, entry: Entry, outcome: Outcome) -> Sequence[Outcome]:
        turn.check_ours()
        claim, source, writes = turn.claim, turn.source, self._writes_of(turn.claim)
        entry = yield from writes.entry(claim.topic, source.id, entry)
        writes.when_durable(turn.end)
        turn.check_ours()
        yield from writes.retry_record(claim.topic, source, entry)
        writes.when_durable(partial(_log, source, entry, outcome))
        return outcome

    def _repeat(self, turn: Turn, known: Entry) -> Sequence[Outcome]:
        turn.check_ours()
        claim, source = turn.claim, turn.source
        yield from self._writes_of(claim).retry_record(claim.topic, source, structs.replace(known, key=source.key))
        return Outcome.SIDELINED

    def _die(self, turn: Turn, entry: Entry, why: DeadLetter, error: BaseException) -> Sequence[Outcome]:
        turn.check_ours()
        claim, source, writes = turn.claim, turn.source, self._writes_of(turn.claim)
        yield from writes.die(claim.topic, source, entry, why, turn.check_ours, locked=False, error=error)
        writes.when_durable(partial(_log, source, entry, Outcome.DEAD_LETTERED))
        return Outcome.DEAD_LETTERED

    def _writes_of(self, claim: Claim) -> Writes:
        return self._writes if claim.path is None else claim.path.writes

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


def _log(source: SourceRecord, entry: Entry, outcome: Outcome) -> None:
    level = "WARNING" if outcome is Outcome.DEAD_LETTERED else "DEBUG"
    logger.bind(
        topic=source.id.topic,
        partition=source.id.partition,
        offset=source.id.offset,
        attempt=entry.attempt,
        error_type=entry.error_type,
    ).log(level, "record {}", outcome.value)


def _nothing(outcome: Outcome) -> Sequence[Outcome]:
    return outcome
    yield  # makes it a sequence
