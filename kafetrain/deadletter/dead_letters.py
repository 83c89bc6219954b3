"""What an operator does with dead letters and stuck keys, as one object; the commands are made of it.

Nothing here touches a lock. A change is a control record in the key's retry partition, which the retry consumer obeys
in its place in the order: now, or when it starts again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from loguru import logger

from kafetrain.client.ports import Client, ClientError, ProducerPort, TopicDescription
from kafetrain.clock import Clock, SystemClock
from kafetrain.core.control import Action
from kafetrain.deadletter.audits import new_audit
from kafetrain.deadletter.carry_out import CarryOut
from kafetrain.deadletter.history import KeyEvent, read_history
from kafetrain.deadletter.letter import DeadLetter, Filter, read_letter
from kafetrain.deadletter.lock_view import LockView, describe
from kafetrain.deadletter.planning import Choice, plan_key_change, plan_replay
from kafetrain.deadletter.plans import Change, Effect, Plan, Result
from kafetrain.deadletter.topic_scan import Progress, read_one, scan_topic
from kafetrain.deadletter.transforms import Transform, load_transform, transform_name, transformed
from kafetrain.errors import ConfigurationError, KafetrainError
from kafetrain.outcome import Lock
from kafetrain.record import MessageId, TopicPartition
from kafetrain.settings import Settings
from kafetrain.topics import AuxiliaryTopics

__all__ = ["DeadLetters"]

_FLUSH = timedelta(seconds=5)
_ALL = Filter()


class DeadLetters:
    """The dead letters and locks of one group on one source topic. One thread; `close` it, or use `with`.

    Building it does no I/O. It joins no group and creates no topic. Keys are bytes, or text that stands for its UTF-8.
    Every call raises `ConfigurationError` where the topic does not exist, and `ClientError` where Kafka refuses.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        client: Client | None = None,
        *,
        clock: Clock | None = None,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        self._settings, self._topic = settings, topic
        self._names = AuxiliaryTopics.of(settings, topic)
        self._client = _default_client(settings) if client is None else client
        self._clock, self._wait = clock or SystemClock(), wait
        self._described: dict[str, TopicDescription] | None = None
        self._view: LockView | None = None
        self._producer: ProducerPort | None = None

    def __enter__(self) -> DeadLetters:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes its connections. What was written stays."""
        view, producer, self._view, self._producer = self._view, self._producer, None, None
        if view is not None:
            view.close()
        if producer is not None:
            producer.close(_FLUSH)

    # Looking

    def locks(self) -> list[Lock]:
        """Every key in retry or dead, as it is now."""
        view = self._fresh_view()
        return [] if view is None else view.locks()

    def scan(
        self, wanted: Filter = _ALL, *, newest_first: bool = False, progress: Progress | None = None
    ) -> Iterator[DeadLetter]:
        """Dead letters of this group in the order of time, read as they are asked for, up to the end as it is now.

        Without a filter: all but marks and copies. Records that kafetrain did not write are among them.
        """
        dlq = self._topics().get(self._names.dlq)
        if dlq is None:
            return
        start = dict.fromkeys(range(dlq.partitions))
        yield from (letter for letter in self._read(start, newest_first, progress) if wanted.takes(letter))

    def show(self, partition: int, offset: int) -> DeadLetter:
        """What lies at this place of the dead-letter topic, a mark or copy too. Raises `KafetrainError`: nothing."""
        dlq, record = self._topics().get(self._names.dlq), None
        if dlq is not None and 0 <= partition < dlq.partitions:
            place = TopicPartition(self._names.dlq, partition)
            record = read_one(self._client, place, offset, self._settings.state_restore_timeout)
        if record is None:
            raise KafetrainError(
                f"there is no dead letter at {self._names.dlq}[{partition}]@{offset}: the place is wrong, or it was "
                f"deleted since"
            )
        return read_letter(record)

    def history(self, key: bytes | str, *, progress: Progress | None = None) -> list[KeyEvent]:
        """A key's story in the order of time, as far as the redirect, retry and dead-letter topics still hold it."""
        return read_history(self._client, self._settings, self._names, self._topics(), _bytes(key), progress)

    # Planning

    def plan_release(self, **choice: Any) -> Plan:
        """What `release` would do: forget the dead heads of the chosen keys."""
        return self._plan_key_change(Action.RELEASE, _choice(**choice))

    def plan_retry_now(self, **choice: Any) -> Plan:
        """What `retry_now` would do."""
        return self._plan_key_change(Action.RETRY_NOW, _choice(**choice))

    def plan_skip(self, **choice: Any) -> Plan:
        """What `skip` would do."""
        return self._plan_key_change(Action.SKIP, _choice(**choice))

    def plan_replay(
        self,
        *,
        append: bool | None = None,
        with_payloads: bool = True,
        progress: Progress | None = None,
        **choice: Any,
    ) -> Plan:
        """What `replay` would run again, in order. `append`: also dead letters of keys that are not dead, behind what
        these have done since; None: where the settings free dead keys."""
        chosen, view = _choice(**choice), self._fresh_view()
        append = self._settings.free_on_dlq if append is None else append
        if view is None:
            return Plan(
                Action.REPLAY, self._topic, (), (f"no key of {self._topic} has ever failed: nothing to replay",)
            )
        return plan_replay(
            view,
            chosen,
            self._topic,
            lambda start: self._read(start, False, progress),
            width=self._width(),
            topic_id=self._topic_id(),
            append=append,
            with_payloads=with_payloads,
        )

    # Changing

    def release(self, key: bytes | str | None = None, **options: Any) -> Result:
        """Forget the dead head of a key: what comes next runs. Options: those of `plan_release` and `carry_out`."""
        choice, rest = _split(key, options)
        return self.carry_out(self.plan_release(**choice), **rest)

    def retry_now(self, key: bytes | str | None = None, **options: Any) -> Result:
        """What is in retry and not due yet is due now."""
        choice, rest = _split(key, options)
        return self.carry_out(self.plan_retry_now(**choice), **rest)

    def skip(self, key: bytes | str | None = None, **options: Any) -> Result:
        """The head of a key goes to the dead-letter topic as `skipped`, and the next one runs."""
        choice, rest = _split(key, options)
        return self.carry_out(self.plan_skip(**choice), **rest)

    def replay(self, key: bytes | str | None = None, *, append: bool | None = None, **options: Any) -> Result:
        """Run the dead and the parked records of a key again, in order, before anything newer of it."""
        choice, rest = _split(key, options)
        with_payloads = rest.get("transform") is not None
        return self.carry_out(self.plan_replay(append=append, with_payloads=with_payloads, **choice), **rest)

    def carry_out(
        self,
        plan: Plan,
        *,
        transform: Transform | str | None = None,
        rate: float | None = None,
        by: str | None = None,
        why: str | None = None,
        wait: bool = True,
        patience: timedelta = timedelta(seconds=60),
        progress: Progress | None = None,
    ) -> Result:
        """Write what was planned, and wait until it took effect.

        `transform`: a function or its `module:function`, which changes payloads before they run; the plan must have
        them. `rate`: at most so many records a second. `by`: who asks; else user@host. `why`: in your words, for the
        record. `wait=False`, or no consumer of the group: returns once the control records are durable. `patience`:
        how long none of them may take effect, before the rest is `LATE`; it stays in the log and will be obeyed.
        Raises `TransformError`; nothing was changed then.
        """
        name = None
        if isinstance(transform, str):
            name, transform = transform, load_transform(transform)
        elif transform is not None:
            name = transform_name(transform)
        audit = new_audit(by=by, why=why, transform=name, clock=self._clock)
        if not plan.targets:
            return Result(plan, audit.command, ())
        view = self._opened_view()
        if view is None:
            raise ConfigurationError(f"{self._names.redirect} is gone: the plan is for locks that no longer exist")
        if self._producer is None:
            self._producer = self._client.producer()
        work = CarryOut(self._producer, self._names, self._width(), audit, self._clock, self._wait)
        targets = list(plan.targets)
        if transform is not None:
            targets = work.change_payloads(targets, transform)
        view.watch(target.id for target in targets)
        work.ask(targets, rate, progress)
        if not wait:
            changes = [Change(target, Effect.WRITTEN) for target in targets]
        elif not self._consumers_run():
            changes = [Change(target, Effect.LATER) for target in targets]
        else:
            changes = work.await_effects(view, targets, patience, progress)
        return Result(plan, audit.command, tuple(changes))

    def check_transform(self, plan: Plan, transform: Transform | str) -> int:
        """Run a transform over what a plan holds, and throw the results away. Returns how many payloads it changes.

        Raises `TransformError`, as `carry_out` would.
        """
        function = load_transform(transform) if isinstance(transform, str) else transform
        letters = [letter for target in plan.targets for letter in target.letters]
        return sum(transformed(function, letter) != letter.value for letter in letters)

    # Parts

    def _plan_key_change(self, action: Action, choice: Choice) -> Plan:
        view = self._fresh_view()
        if view is None:
            return Plan(action, self._topic, (), (f"no key of {self._topic} has ever failed: nothing to do",))
        return plan_key_change(view, action, choice, self._topic, self._clock.now_ms())

    def _read(
        self, start: dict[int, int | None], newest_first: bool, progress: Progress | None
    ) -> Iterator[DeadLetter]:
        records = scan_topic(
            self._client,
            self._names.dlq,
            start,
            newest_first=newest_first,
            patience=self._settings.state_restore_timeout,
            progress=progress,
            clock=self._clock,
        )
        for record in records:
            letter = read_letter(record)
            if letter.id is None or letter.id.group == self._settings.group_id:
                yield letter

    def _topics(self) -> dict[str, TopicDescription]:
        if self._described is None:
            self._described = describe(self._client, self._settings, self._topic)
        return self._described

    def _width(self) -> int:
        """How many partitions all auxiliary topics have."""
        described = self._topics()
        if missing := [name for name in self._names.auxiliary if name not in described]:
            raise ConfigurationError(
                f"{', '.join(missing)} does not exist: kafetrain topics verify {self._topic} says what is wrong"
            )
        return min(described[name].partitions for name in self._names.auxiliary)

    def _topic_id(self) -> str:
        """The source topic's, empty where it is not told."""
        source = self._topics().get(self._names.source)
        return "" if source is None else source.topic_id

    def _opened_view(self) -> LockView | None:
        redirect = self._topics().get(self._names.redirect)
        if self._view is None and redirect is not None:
            self._view = LockView(self._client, self._settings, self._topic, redirect.partitions, clock=self._clock)
        return self._view

    def _fresh_view(self) -> LockView | None:
        if self._view is not None:
            self._view.refresh()
        return self._opened_view()

    def _consumers_run(self) -> bool:
        admin = self._client.admin()
        try:
            return admin.group_members(self._settings.retry_group_id) > 0
        except ClientError as error:
            logger.warning("whether a consumer runs is not known ({}); waiting for it", error)
            return True
        finally:
            admin.close()


def _default_client(settings: Settings) -> Client:
    from kafetrain.client.choose import client_for

    return client_for(settings)


def _bytes(key: bytes | str) -> bytes:
    return key.encode() if isinstance(key, str) else key


def _choice(
    key: bytes | str | None = None, id: MessageId | str | None = None, reason: str | None = None, all: bool = False
) -> Choice:
    return Choice(None if key is None else _bytes(key), MessageId.parse(id) if isinstance(id, str) else id, reason, all)


def _split(key: bytes | str | None, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Which keys, and how."""
    choice: dict[str, Any] = {name: options.pop(name) for name in ("id", "reason", "all") if name in options}
    return {"key": key, **choice}, options
