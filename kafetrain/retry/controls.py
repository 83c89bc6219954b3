"""Control records: does what operators ask for a key, at its place in the order of the retry partition.

A control record acts only while the id that it names is as its author saw it, and is complete when what it led to is
durable. So a crash in between repeats it, and repeating it changes nothing. While one works on a key, nothing else
happens to that key: what is read of it is laid aside, and its next control record waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from loguru import logger
from msgspec import structs

from kafetrain.client.ports import ClientError, ConsumerPort
from kafetrain.core.chain import ChainKey, chain_key
from kafetrain.core.control import Action, Control, audit_headers
from kafetrain.core.entry import Entry, State
from kafetrain.core.headers import DeadLetterState
from kafetrain.core.rules import runnable_head
from kafetrain.errors import FatalError, PartitionLostError
from kafetrain.record import Record, place_of
from kafetrain.retry.outcomes import Outcomes
from kafetrain.retry.partition import RetryPartition
from kafetrain.retry.replay import Job, Replay
from kafetrain.tracker.parts import Parts
from kafetrain.tracker.state import TrackerState
from kafetrain.tracker.write_path import Work
from kafetrain.tracker.writes import DeadLetter

__all__ = ["Controls"]


@dataclass(slots=True)
class _Asked:
    """What is asked for one key, in order. `busy`: the first is being done."""

    queue: deque[tuple[Record, Control]] = field(default_factory=deque)
    busy: bool = False


class Controls:
    """Of one retry partition. The loop's thread calls everything."""

    def __init__(
        self,
        part: RetryPartition,
        outcomes: Outcomes,
        parts: Parts,
        state: TrackerState,
        background: Executor,
        open_reader: Callable[[], ConsumerPort],
    ) -> None:
        self._part, self._outcomes, self._parts, self._state = part, outcomes, parts, state
        self._background, self._open_reader = background, open_reader
        self._asked: dict[tuple[int, ChainKey], _Asked] = {}
        self._jobs: list[Job] = []

    def step(self) -> None:
        """Take what was read, and do what can be done now. Where nothing is asked: nothing."""
        for record, control in self._part.controls:
            chain = (control.id.partition, chain_key(record.key, control.id.offset))
            self._asked.setdefault(chain, _Asked()).queue.append((record, control))
        self._part.controls.clear()
        if not self._asked or self._part.leaving:
            return
        for chain, asked in tuple(self._asked.items()):
            if not asked.busy:
                self._obey(chain, asked)
        if self._jobs and not self._part.replaying:
            self._start_replay()

    def _obey(self, chain: tuple[int, ChainKey], asked: _Asked) -> None:
        record, control = asked.queue[0]
        with self._state.mutex:
            entry = self._part.table.source(control.id.partition).entries.get(control.id.offset)
        if control.action == Action.RELEASE:
            self._release(chain, control, entry)
        elif control.action == Action.RETRY_NOW:
            self._retry_now(chain, control, entry)
        elif control.action == Action.SKIP:
            self._skip(chain, control, entry)
        elif control.action == Action.REPLAY:
            self._replay(chain, record, control, entry)
        elif control.action == Action.APPEND:
            self._append(chain, record, control, entry)
        else:
            raise FatalError(
                f"{place_of(record)} asks to {control.action!r} a key, which this version does not know: upgrade this "
                f"instance first. Nothing past it is committed."
            )

    # One key, one lock

    def _release(self, chain: tuple[int, ChainKey], control: Control, entry: Entry | None) -> None:
        if entry is None or entry.state is not State.DEAD:
            self._done(chain, control, "nothing to release")
            return
        headers = audit_headers(control.audit)
        tombstone = self._outcomes.writes(self._part).tombstone
        self._write(
            chain, control, partial(tombstone, self._outcomes.topic, control.id, entry.key, headers), "released"
        )

    def _retry_now(self, chain: tuple[int, ChainKey], control: Control, entry: Entry | None) -> None:
        now_ms = self._parts.clock.now_ms()
        if entry is None or entry.state is not State.PENDING or entry.due_ms <= now_ms:
            self._done(chain, control, "due already")
            return
        with self._state.mutex:
            held = self._part.schedule.get((control.id.partition, control.id.offset))
            runs = held is not None and held.busy
            if held is not None:
                held.busy = True  # or it might run while its entry is written, and its outcome be undone by that
        if runs:
            self._done(chain, control, "due already")
            return
        entry = structs.replace(entry, due_ms=now_ms, log_offset=-1)
        headers, write = audit_headers(control.audit), self._outcomes.writes(self._part).entry
        work = partial(write, self._outcomes.topic, control.id, entry, headers, alone=held is None)
        self._part.lay_aside(chain)
        put_back = None if held is None else partial(self._part.put_back, held)
        self._write(chain, control, work, "due now", put_back)

    def _skip(self, chain: tuple[int, ChainKey], control: Control, entry: Entry | None) -> None:
        if entry is None or entry.state is not State.PENDING:
            self._done(chain, control, "nothing to skip")
            return
        with self._state.mutex:
            held = self._part.schedule.get((control.id.partition, control.id.offset))
            locks = self._part.table.source(chain[0])
            known = locks.chains.get(chain[1])
            is_head = known is not None and runnable_head(locks, known) == control.id.offset
            if held is None or held.busy or not is_head:
                return  # it runs, or its record is still to be read: later
            if held.record is None:
                self._part.schedule.want(held)
                return
            held.busy = True
        letter = DeadLetter(
            DeadLetterState.SKIPPED, entry.attempt, entry.error_type, entry.error, entry.first_failure_ms
        )
        headers, bury = audit_headers(control.audit), self._outcomes.writes(self._part).bury
        work = partial(bury, self._outcomes.topic, self._outcomes.source(held), letter, headers)
        self._write(chain, control, work, "skipped", partial(self._part.drop, held), (held.at,))

    # Dead letters that run again

    def _replay(self, chain: tuple[int, ChainKey], record: Record, control: Control, entry: Entry | None) -> None:
        if entry is None or entry.state is not State.DEAD or entry.dead_at is None:
            self._done(chain, control, "not dead: nothing to replay")
            return
        self._part.lay_aside(chain)
        with self._state.mutex:
            known = self._part.table.source(chain[0]).chains.get(chain[1])
            pending = frozenset(known.open) - {control.id.offset} if known is not None else frozenset()
            if any(self._is_busy(chain[0], offset) for offset in pending):
                return  # one of them is just being parked
        self._asked[chain].busy = True
        self._jobs.append(Job(chain, control, record.key, entry.log_offset, entry.dead_at, pending))

    def _append(self, chain: tuple[int, ChainKey], record: Record, control: Control, entry: Entry | None) -> None:
        if entry is not None or control.dead_at is None:
            self._done(chain, control, "has a lock already")
            return
        self._part.lay_aside(chain)
        self._asked[chain].busy = True
        self._jobs.append(Job(chain, control, record.key, control.lock_offset, control.dead_at, None))

    def _is_busy(self, partition: int, offset: int) -> bool:
        held = self._part.schedule.get((partition, offset))
        return held is not None and held.busy

    def _start_replay(self) -> None:
        """All that is asked by now: they share one look through the dead-letter topic."""
        jobs, self._jobs, self._part.replaying = self._jobs, [], True
        replay = Replay(self._part, self._outcomes.topic, self._parts, jobs, self._open_reader)
        self._part.open_work += 1
        self._part.open_writes += 1
        running = self._background.submit(replay.run)
        running.add_done_callback(lambda ran: self._outcomes.inbox.put(partial(self._replayed, jobs, ran)))

    def _replayed(self, jobs: list[Job], ran: Future[None]) -> None:
        self._part.open_work -= 1
        self._part.open_writes -= 1
        self._part.replaying = False
        if self._part.orphans is not None:
            self._part.orphans.drop()
        if self._part.gone or ran.cancelled() or isinstance(ran.exception(), PartitionLostError):
            return  # the control records stay incomplete: the next owner obeys them
        error = ran.exception()
        if isinstance(error, ClientError) and error.retriable:
            logger.warning("not replayed yet, trying again: {}", error)
            self._jobs += jobs
            return
        ran.result()  # raises
        for job in jobs:
            self._done(job.chain, job.control, job.result)

    # The end of one

    def _write(
        self,
        chain: tuple[int, ChainKey],
        control: Control,
        work: Work[Any],
        result: str,
        then: Callable[[], None] | None = None,
        completes: Collection[int] = (),
    ) -> None:
        self._asked[chain].busy = True

        def written() -> None:
            if then is not None:
                with self._state.mutex:
                    then()
            self._done(chain, control, result)

        record, _ = self._asked[chain].queue[0]
        self._outcomes.write(self._part, work, written, (record.offset, *completes))

    def _done(self, chain: tuple[int, ChainKey], control: Control, result: str) -> None:
        asked = self._asked[chain]
        record, _ = asked.queue.popleft()
        asked.busy = False
        if not asked.queue:
            del self._asked[chain]
        with self._state.mutex:
            self._part.take_back(chain)
        self._part.ledger.complete(record.offset)
        id = control.id
        logger.bind(topic=id.topic, partition=id.partition, offset=id.offset, by=control.audit.by).info(
            "control record {} obeyed: {}", control.action, result
        )
