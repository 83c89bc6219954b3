"""From the locks and the dead letters as they are now to what a command will do.

Nothing is written here. A key is named by its bytes, and may live in several source partitions; a record without a key
is named by its message id alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from kafetrain.core.control import Action
from kafetrain.core.entry import State
from kafetrain.core.headers import DeadLetterState
from kafetrain.deadletter.key_text import key_text
from kafetrain.deadletter.letter import DeadLetter
from kafetrain.deadletter.lock_view import Head, LockView
from kafetrain.deadletter.plans import Plan, Target
from kafetrain.errors import ConfigurationError
from kafetrain.record import MessageId

__all__ = ["Choice", "Letters", "plan_key_change", "plan_replay"]

Letters = Callable[[dict[int, "int | None"]], Iterator[DeadLetter]]
"""Reads the dead letters of these partitions of the dead-letter topic, from these offsets on, oldest first."""

_RUNNABLE = frozenset(
    {
        DeadLetterState.EXHAUSTED,
        DeadLetterState.NOT_RETRIABLE,
        DeadLetterState.PARKED,
        DeadLetterState.SKIPPED,
    }
)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which keys are meant: exactly one field says it."""

    key: bytes | None = None
    id: MessageId | None = None
    reason: str | None = None
    """A part of the error's type and text, in whatever case."""
    all: bool = False

    def __post_init__(self) -> None:
        if sum((self.key is not None, self.id is not None, self.reason is not None, self.all)) != 1:
            raise ConfigurationError("say which keys are meant: by key, id or reason, or all of them; one of these")

    @property
    def text(self) -> str:
        if self.key is not None:
            return f"key {key_text(self.key)}"
        if self.id is not None:
            return str(self.id)
        return "no key" if self.all else f"no key with an error like {self.reason!r}"

    def takes(self, id: MessageId | None, key: bytes | None, error: str) -> bool:
        if self.key is not None:
            return key == self.key
        if self.id is not None:
            return id == self.id
        return self.reason is None or self.reason.lower() in error.lower()

    def takes_head(self, head: Head) -> bool:
        entry = head.entry
        error = ": ".join(part for part in (entry.error_type, entry.error) if part)
        return self.takes(head.id, entry.key, error)


def plan_key_change(view: LockView, action: Action, choice: Choice, topic: str, now_ms: int) -> Plan:
    """Release, retry-now or skip: each acts on heads in one state, and says of the others why not."""
    targets, nothing = [], []
    chosen = [head for head in view.heads() if choice.takes_head(head)]
    for head in chosen:
        why_not = _why_not(action, head, choice, now_ms)
        if why_not is None:
            targets.append(_target(action, head))
        elif not choice.all and choice.reason is None:
            nothing.append(f"{choice.text} {why_not}")
    if not targets and not nothing:
        state = "dead" if action is Action.RELEASE else "in retry"
        is_not = "is" if choice.all or choice.reason is not None else "is not"
        nothing.append(f"{choice.text} {is_not} {state}: nothing to {_VERB[action]}")
    return Plan(action, topic, tuple(targets), tuple(nothing))


def plan_replay(
    view: LockView,
    choice: Choice,
    topic: str,
    read: Letters,
    *,
    width: int,
    topic_id: str,
    append: bool,
    with_payloads: bool,
) -> Plan:
    """Dead keys again with all that is parked behind them; with `append`, dead letters of other keys too.

    `topic_id`: the source topic's as it is now. What died in a former topic of its name does not run in this one.
    """
    heads = {head.id: head for head in view.heads() if head.entry.state is State.DEAD}
    dead = [head for head in heads.values() if choice.takes_head(head)]
    chosen = [head for head in dead if head.entry.dead_at is not None]
    start: dict[int, int | None] = dict.fromkeys(range(width)) if append else {}
    if not append:
        for head in chosen:
            partition, offset = head.entry.dead_at or (0, 0)
            known = start.get(partition)
            start[partition] = offset if known is None else min(known, offset)
    behind = _Behind(chosen, with_payloads)
    others = _Others(choice, view, {_chain(id, head.entry.key) for id, head in heads.items()}, with_payloads)
    if start:
        for letter in read(start):
            if letter.topic_id not in (None, topic_id):
                others.refuse(letter)
                continue
            behind.look_at(letter)
            if append:
                others.look_at(letter)
    targets = [
        replace(_target(Action.REPLAY, head), letters=behind.of(head)) for head in chosen if behind.has_letter_of(head)
    ]
    targets += [
        Target(Action.APPEND, id, letter.key, view.end_of(id) - 1, letters=(letter,))
        for id, letter in others.not_replayed()
    ]
    nothing = [
        f"{_named(head)} is dead, but its dead letter was deleted, or is a former topic's: nothing to replay. "
        f"Release it instead"
        for head in dead
        if not behind.has_letter_of(head)
    ]
    if not targets and not nothing:
        nothing.append(_no_replay(choice, append, others.refused))
    return Plan(Action.REPLAY, topic, tuple(targets), tuple(nothing))


def _no_replay(choice: Choice, append: bool, refused: int) -> str:
    is_not = "is" if choice.all or choice.reason is not None else "is not"
    text = f"{choice.text} {is_not} dead: nothing to replay"
    if append:
        text += ", and there is no dead letter of it that was not replayed"
    if refused:
        text += f"; left alone, being in retry or no records of this topic: {refused}"
    return text


_VERB = {Action.RELEASE: "release", Action.RETRY_NOW: "hurry", Action.SKIP: "skip"}


def _why_not(action: Action, head: Head, choice: Choice, now_ms: int) -> str | None:
    dead = head.entry.state is State.DEAD
    if action is Action.RELEASE:
        return None if dead else "is in retry, and not dead: nothing to release"
    if dead:
        return f"is dead: nothing to {_VERB[action]}. Use dlq release or dlq replay"
    if action is Action.RETRY_NOW and head.entry.due_ms <= now_ms:
        return "is due already: nothing to hurry"
    return None


def _target(action: Action, head: Head) -> Target:
    return Target(action, head.id, head.entry.key, head.entry.log_offset, head.entry.attempt)


def _named(head: Head) -> str:
    return str(head.id) if head.entry.key is None else f"key {key_text(head.entry.key)}"


def _chain(id: MessageId, key: bytes | None) -> tuple[int, bytes | int]:
    return (id.partition, id.offset if key is None else key)


def _slim(letter: DeadLetter, with_payloads: bool) -> DeadLetter:
    return letter if with_payloads else replace(letter, value=None, headers=(), raw_headers=())


class _Behind:
    """For each dead head its dead letter, and what was parked behind it."""

    def __init__(self, heads: Iterable[Head], with_payloads: bool) -> None:
        self._with_payloads = with_payloads
        self._heads = {_chain(head.id, head.entry.key): head for head in heads}
        self._found: defaultdict[MessageId, dict[MessageId, DeadLetter]] = defaultdict(dict)

    def look_at(self, letter: DeadLetter) -> None:
        if letter.id is None or letter.state not in _RUNNABLE:
            return
        head = self._heads.get(_chain(letter.id, letter.key))
        if head is None or letter.id.group != head.id.group or letter.id.topic != head.id.topic:
            return
        partition, offset = head.entry.dead_at or (-1, -1)
        is_head = letter.place == (partition, offset)
        is_parked = letter.state == DeadLetterState.PARKED and letter.partition == partition and letter.offset > offset
        if is_head or (is_parked and letter.id.offset > head.id.offset):
            self._found[head.id][letter.id] = _slim(letter, self._with_payloads)

    def has_letter_of(self, head: Head) -> bool:
        return head.id in self._found.get(head.id, {})

    def of(self, head: Head) -> tuple[DeadLetter, ...]:
        return tuple(letter for _, letter in sorted(self._found[head.id].items()))


class _Others:
    """Dead letters of keys that are not dead, each id once: its newest, unless it was replayed since."""

    def __init__(self, choice: Choice, view: LockView, dead: set[tuple[int, bytes | int]], with_payloads: bool) -> None:
        self._choice, self._view, self._dead = choice, view, dead
        self._with_payloads = with_payloads
        self._newest: dict[MessageId, DeadLetter] = {}
        self.refused = 0
        """How many were chosen and cannot run: in retry, malformed, or of a former topic."""

    def refuse(self, letter: DeadLetter) -> None:
        self.refused += self._choice.takes(letter.id, letter.key, letter.error)

    def look_at(self, letter: DeadLetter) -> None:
        id = letter.id
        if id is None:
            return
        if letter.state == DeadLetterState.REPLAYED:
            # It names the letter, or a changed copy of it that lies behind it. What lies behind that died again since.
            known = self._newest.get(id)
            if known is not None and (letter.replayed is None or known.offset <= letter.replayed[1]):
                del self._newest[id]
        elif letter.state in (DeadLetterState.MALFORMED, DeadLetterState.RESET):
            self.refuse(letter)
        elif letter.state in _RUNNABLE and _chain(id, letter.key) not in self._dead:
            self._newest.pop(id, None)
            if self._choice.takes(id, letter.key, letter.error):
                self._newest[id] = _slim(letter, self._with_payloads)

    def not_replayed(self) -> list[tuple[MessageId, DeadLetter]]:
        free = [(id, letter) for id, letter in sorted(self._newest.items()) if self._view.entry(id) is None]
        self.refused += len(self._newest) - len(free)
        return free
