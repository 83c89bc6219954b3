"""Which partitions a loop owns, from assignment to hand-over, and how far each is committed.

Rebalance listeners are called on the client's own thread, where nothing may block. They leave an event here; the loop
takes it in its next step, lets running work end, and answers with what to commit. A partition is handed over only when
nothing of it is under way, so that its next owner finds every write of ours in the log.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, Protocol, TypeVar

from loguru import logger

from kafetrain.client.ports import ClientError, Committed, ConsumerPort, NotOwnerError
from kafetrain.clock import Clock
from kafetrain.record import TopicPartition

__all__ = ["Owned", "Ownership", "by_topic"]

COMMIT_EVERY_S = 1.0
LAST_COMMIT_S = 5.0
"""For how long a refused commit is tried again on leaving: what it does not commit would run once more elsewhere."""


class Owned(Protocol):
    """A partition that the loop works on. The loop's thread calls it."""

    place: TopicPartition
    committed: int

    def leave(self) -> None:
        """Start nothing new; call off what has not begun."""

    @property
    def idle(self) -> bool:
        """No handler runs, and no write is in flight."""

    @property
    def writing(self) -> bool:
        """A write is in flight. It ends within the producer's delivery timeout."""

    def to_commit(self) -> Committed | None:
        """The position, where it has moved past `committed`."""

    def position_with(self, completed: Collection[int]) -> Committed:
        """The position, were these offsets complete too; never below `committed`. A transaction's thread asks."""


@dataclass(frozen=True, slots=True)
class _Assigned:
    partitions: frozenset[TopicPartition]


@dataclass(frozen=True, slots=True)
class _Lost:
    partitions: frozenset[TopicPartition]


@dataclass(slots=True)
class _Handover:
    partitions: frozenset[TopicPartition]
    deadline: float = 0.0
    """When to stop waiting for running work (monotonic)."""
    abandoned: Mapping[TopicPartition, Committed] | None = None
    """What to commit, once handlers that did not end in time were given up: they may write nothing any more."""
    still_writing: tuple[Owned, ...] = ()
    answer: Mapping[TopicPartition, Committed] | None = None
    """What to commit. Written once, by the loop; read by the client's thread."""


P = TypeVar("P", bound=Owned)


class Ownership(Generic[P]):
    """Of one consumer. It is the consumer's `RebalanceEvents`; all else is for the loop's thread.

    `claim` is told of partitions that are assigned: they deliver nothing until `begin`. `release` is told of those that
    are gone. `disown` is told of lost ones at once, on the client's thread. Running work is waited for at most
    `patience_s`.
    """

    def __init__(
        self,
        consumer: ConsumerPort,
        clock: Clock,
        patience_s: float,
        claim: Callable[[Collection[TopicPartition]], None],
        release: Callable[[Collection[TopicPartition], Collection[P]], None],
        disown: Callable[[Collection[TopicPartition]], None] = lambda places: None,
    ) -> None:
        self._consumer, self._clock, self._patience_s = consumer, clock, patience_s
        self._claim, self._release, self._disown = claim, release, disown
        self._committing = threading.Lock()  # while a commit of the loop is under way, and to change the next
        self._in_transactions: frozenset[TopicPartition] = frozenset()
        self._events: SimpleQueue[_Assigned | _Lost | _Handover] = SimpleQueue()
        self._handovers: list[_Handover] = []
        self._next_commit = 0.0
        self._closed = False
        self.partitions: dict[TopicPartition, P] = {}
        """What the loop works on."""
        self.awaited: set[TopicPartition] = set()
        """Ours, but not begun: its locks are not restored yet."""

    # The client's thread

    def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        self._events.put(_Assigned(partitions))

    def lost(self, partitions: frozenset[TopicPartition]) -> None:
        self._disown(partitions)
        self._events.put(_Lost(partitions))

    def revoking(
        self, partitions: frozenset[TopicPartition]
    ) -> Callable[[], Mapping[TopicPartition, Committed] | None]:
        handover = _Handover(partitions)
        self._events.put(handover)
        # Closed: the loop has committed what was complete, and takes no event any more.
        return lambda: {} if self._closed else handover.answer

    # The loop's thread

    def __iter__(self) -> Iterator[P]:
        return iter(tuple(self.partitions.values()))

    @property
    def leaving(self) -> bool:
        """Is a hand-over waiting for running work?"""
        return bool(self._handovers)

    def take_events(self) -> None:
        """Learn what a rebalance has changed."""
        while True:
            try:
                event = self._events.get_nowait()
            except Empty:
                return
            if isinstance(event, _Assigned):
                self.awaited |= event.partitions
                self._claim(event.partitions)
                continue
            self.awaited -= event.partitions  # what is not begun never begins
            for place in event.partitions & self.partitions.keys():
                self.partitions[place].leave()
            if isinstance(event, _Lost):
                self._give_up(event.partitions)
                for handover in self._handovers:  # should they come back, that is a new assignment
                    handover.partitions -= event.partitions
            else:
                event.deadline = self._clock.monotonic() + self._patience_s
                self._handovers.append(event)

    def begin(self, partition: P) -> None:
        """Its locks are restored: let it deliver."""
        self.partitions[partition.place] = partition
        self.awaited.discard(partition.place)
        self._consumer.resume([partition.place])

    def put_back(self, place: TopicPartition, offset: int) -> None:
        """It was delivered from here on and has not begun: a resume that was meant for its former assignment came after
        the new one. Delivered again once it begins."""
        if place in self.awaited:
            with suppress(NotOwnerError):
                self._consumer.pause([place])
                self._consumer.seek(place, offset)

    def answer_handovers(self) -> None:
        """Hand over what is idle. Handlers that have had their time are abandoned; writes are waited for: one that
        lands after the next owner has read the log would undo what that one does."""
        for handover in tuple(self._handovers):
            if handover.abandoned is None:
                parts = [self.partitions[place] for place in handover.partitions & self.partitions.keys()]
                if not all(part.idle for part in parts) and self._clock.monotonic() < handover.deadline:
                    continue
                handover.abandoned = {p.place: offset for p in parts if (offset := p.to_commit()) is not None}
                handover.still_writing = tuple(parts)
                self._give_up(handover.partitions)
            if not any(part.writing for part in handover.still_writing):
                # A transaction may have committed more since then.
                committed = {part.place: part.committed for part in handover.still_writing}
                handover.answer = {
                    place: offset
                    for place, offset in handover.abandoned.items()
                    if offset.next_offset > committed.get(place, -1)
                }
                self._handovers.remove(handover)

    def commit_if_due(self, *, pressed: bool = False) -> None:
        """`pressed`: a round trip would delay something now. That puts it off, but not for longer than once more."""
        if self._clock.monotonic() >= self._next_commit + pressed * COMMIT_EVERY_S:
            self.commit()

    def commit(self) -> bool:
        """Commit what has moved. A refusal is no error, but False: what is not committed is delivered again."""
        self.take_events()  # what was lost, and may have come back since, commits nothing
        self._next_commit = self._clock.monotonic() + COMMIT_EVERY_S
        with self._committing:
            return self._commit_all_but(self._in_transactions)

    def _commit_all_but(self, others: frozenset[TopicPartition]) -> bool:
        mine = [part for part in self if part.place not in others]
        offsets = {part.place: offset for part in mine if (offset := part.to_commit()) is not None}
        if not offsets:
            return True
        try:
            self._consumer.commit(offsets)
        except NotOwnerError as error:
            logger.debug("offsets not committed, a rebalance is under way: {}", error)
        except ClientError as error:
            if not error.retriable:
                raise
            logger.warning("offsets not committed, trying again: {}", error)
        else:
            for place, offset in offsets.items():
                self.partitions[place].committed = offset.next_offset
            return True
        return False

    # The thread of a transaction

    @contextmanager
    def carrying(
        self, completed: Mapping[TopicPartition, Collection[int]]
    ) -> Iterator[Mapping[TopicPartition, Committed]]:
        """What a transaction commits that completes these offsets; committed where it ends without an error.

        Nobody else commits the partitions meanwhile: of two commits the later one counts, and the offsets of a
        transaction are as old as their request, not as its end.
        """
        with self._committing:
            parts = {place: part for place in completed if (part := self.partitions.get(place)) is not None}
            if parts.keys() != completed.keys():
                raise NotOwnerError("a partition of the transaction was given up")
            offsets = {place: part.position_with(completed[place]) for place, part in parts.items()}
            self._in_transactions = frozenset(parts)
        try:
            yield offsets
            for place, offset in offsets.items():
                parts[place].committed = offset.next_offset
        finally:
            with self._committing:
                self._in_transactions = frozenset()

    # The loop's thread

    def close(self, work_on: Callable[[], object]) -> None:
        """Start nothing more; call `work_on` until running work has ended or had its time; commit; leave the group."""
        deadline = self._clock.monotonic() + self._patience_s
        try:
            for part in self:
                part.leave()
            while not all(part.idle for part in self) and self._clock.monotonic() < deadline:
                work_on()
            deadline = min(deadline, self._clock.monotonic() + LAST_COMMIT_S)
            while not self.commit() and self._clock.monotonic() < deadline:
                # Others who leave at the same time cause a rebalance, and it may leave us what we have.
                work_on()
                self.answer_handovers()
        finally:
            self._closed = True
            self._give_up(self.partitions.keys() | self.awaited)
            self._consumer.close()

    def _give_up(self, places: Collection[TopicPartition]) -> None:
        places = frozenset(places)
        self.awaited -= places
        gone = [self.partitions.pop(place) for place in places & self.partitions.keys()]
        self._release(places, gone)


def by_topic(places: Collection[TopicPartition]) -> dict[str, list[int]]:
    """Partition numbers by topic."""
    found: dict[str, list[int]] = {}
    for place in places:
        found.setdefault(place.topic, []).append(place.partition)
    return found
