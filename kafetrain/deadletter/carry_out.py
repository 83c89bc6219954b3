"""Carrying out a plan: changed copies first, then one control record for each target, then waiting for the effects.

The order is what makes a kill harmless. A copy without its control record changes nothing; a control record that is
durable is obeyed once, whoever waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import timedelta

from loguru import logger

from kafetrain.client.ports import OutgoingRecord, ProducerPort
from kafetrain.clock import Clock
from kafetrain.core.control import Action, Audit, Control, control_headers
from kafetrain.core.entry import State
from kafetrain.core.headers import DeadLetterState
from kafetrain.deadletter.letter import DeadLetter
from kafetrain.deadletter.lock_view import LockView
from kafetrain.deadletter.plans import Change, Effect, Target
from kafetrain.deadletter.topic_scan import Progress
from kafetrain.deadletter.transforms import Transform, transformed
from kafetrain.errors import KafetrainError, first_line
from kafetrain.record import DlqHeader, Headers
from kafetrain.topics import AuxiliaryTopics

__all__ = ["CarryOut"]

_DELIVERY = timedelta(minutes=2)
"""Longer than the producer's own timeout, which ends the futures."""

_CHANGED = (DlqHeader.STATE, DlqHeader.COMMAND, DlqHeader.TRANSFORM, DlqHeader.NULL_VALUE)


class CarryOut:
    """One command. For one thread."""

    def __init__(
        self,
        producer: ProducerPort,
        names: AuxiliaryTopics,
        width: int,
        audit: Audit,
        clock: Clock,
        wait: Callable[[float], object],
    ) -> None:
        self._producer, self._names, self._width = producer, names, width
        self._audit, self._clock, self._wait = audit, clock, wait

    def change_payloads(self, targets: Sequence[Target], transform: Transform) -> list[Target]:
        """Append a copy of each dead letter whose value the transform changes; durable on return.

        Returns the targets with the copies in place of the letters. Raises `TransformError` before anything is written.
        """
        changed = [
            [(letter, value) for letter in target.letters if (value := transformed(transform, letter)) != letter.value]
            for target in targets
        ]
        sent = [
            [(letter, self._producer.send(self._copy(letter, value))) for letter, value in letters]
            for letters in changed
        ]
        found = []
        for target, copies in zip(targets, sent, strict=True):
            offsets = {letter.id: future.result(_DELIVERY.total_seconds()) for letter, future in copies}
            letters = [replace(letter, offset=offsets.get(letter.id, letter.offset)) for letter in target.letters]
            found.append(replace(target, letters=tuple(letters)))
        return found

    def ask(self, targets: Sequence[Target], rate: float | None, progress: Progress | None) -> None:
        """Append the control records; durable on return. `rate`: so many records run again in a second, at most."""
        sent: list[Future[int]] = []
        due = self._clock.monotonic()
        for number, target in enumerate(targets, 1):
            if rate is not None:
                self._wait(max(0.0, due - self._clock.monotonic()))
                due += max(1, len(target.letters)) / rate
            sent.append(self._producer.send(self._control(target)))
            logger.bind(
                topic=self._names.source, partition=target.id.partition, offset=target.id.offset,
                action=target.action.value, command=self._audit.command, by=self._audit.by, why=self._audit.why,
                transform=self._audit.transform,
            ).info("an operator asks for {}", target.action.value)  # fmt: skip
            if progress is not None:
                progress(number, len(targets))
        errors = [error for future in sent if (error := future.exception(_DELIVERY.total_seconds())) is not None]
        if errors:
            raise KafetrainError(
                f"{len(sent) - len(errors)} of {len(sent)} control records are written and will be obeyed; the others "
                f"are not: {first_line(errors[0])}. Done again, it asks for what is left"
            ) from errors[0]

    def await_effects(
        self, view: LockView, targets: Sequence[Target], patience: timedelta, progress: Progress | None
    ) -> list[Change]:
        """Look at the redirect log until all are obeyed, or none has been for `patience`. `view` watches their ids."""
        open_targets = list(targets)
        since = self._clock.monotonic()
        while open_targets:
            now_ms = self._clock.now_ms()
            left = [target for target in open_targets if not _is_obeyed(view, target, now_ms)]
            if len(left) < len(open_targets):
                open_targets, since = left, self._clock.monotonic()
                if progress is not None:
                    progress(len(targets) - len(left), len(targets))
            elif self._clock.monotonic() - since >= patience.total_seconds():
                break
            if open_targets:
                view.poll()
        late = {id(target) for target in open_targets}
        return [Change(target, Effect.LATE if id(target) in late else Effect.DONE) for target in targets]

    def _control(self, target: Target) -> OutgoingRecord:
        dead_at = target.letters[0].place if target.action is Action.APPEND else None
        control = Control(target.action.value, target.id, target.lock_offset, self._audit, dead_at)
        partition = target.id.partition % self._width
        return OutgoingRecord(self._names.retry, partition, target.key, b"", control_headers(control))

    def _copy(self, letter: DeadLetter, value: bytes | None) -> OutgoingRecord:
        headers = [(name, text or b"") for name, text in _without_changed(letter)]
        ours: list[tuple[str, str | None]] = [
            (DlqHeader.STATE, DeadLetterState.TRANSFORMED),
            (DlqHeader.COMMAND, self._audit.command),
            (DlqHeader.TRANSFORM, self._audit.transform),
            (DlqHeader.NULL_VALUE, "1" if letter.key is None and value is None else None),
        ]
        headers += [(name, text.encode()) for name, text in ours if text is not None]
        sent = b"" if letter.key is None and value is None else value  # clients refuse neither key nor value
        return OutgoingRecord(letter.topic, letter.partition, letter.key, sent, headers)


def _without_changed(letter: DeadLetter) -> Headers:
    """The headers of a dead letter but those that a copy has anew; the record's own stay, whatever their names."""
    start = max(i for i, (name, _) in enumerate(letter.raw_headers) if name == DlqHeader.ID)
    return [pair for i, pair in enumerate(letter.raw_headers) if i < start or pair[0] not in _CHANGED]


def _is_obeyed(view: LockView, target: Target, now_ms: int) -> bool:
    if target.action is Action.APPEND:
        return view.changed_at(target.id) > target.lock_offset
    entry = view.entry(target.id)
    if entry is None:
        return True
    if target.action is Action.SKIP:
        return entry.state is State.DEAD  # of its own accord, meanwhile
    if target.action is Action.RETRY_NOW:
        return entry.state is State.DEAD or entry.due_ms <= now_ms or entry.attempt != target.attempt
    return entry.state is not State.DEAD or entry.log_offset > target.lock_offset
