"""What a tracker knows, shared by its threads.

Claims say which partitions somebody here works on; a lock table exists for each redirect partition that a claim
needs. The reader thread fills the tables from the log, the sequencer thread adds our own acknowledged writes, and
workers and loops ask. `mutex` guards all of it; nothing blocks while holding it. No other lock is ever taken inside.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from kafetrain.core.chain import Chain, ChainKey
from kafetrain.core.entry import Entry, Registration
from kafetrain.core.lock_table import LockTable, SourceLocks
from kafetrain.errors import KafetrainError, NotTrackedError
from kafetrain.record import Record, TopicPartition
from kafetrain.topic_setup import PreparedTopics

if TYPE_CHECKING:
    from kafetrain.tracker.turn import Turn
    from kafetrain.tracker.write_path import WritePath

__all__ = ["METADATA_PREFIX", "Claim", "Side", "TrackerState"]

METADATA_PREFIX = "kafetrain:"

Listener = Callable[[int, ChainKey, int], None]


class Side(Enum):
    """On whose behalf a partition is claimed."""

    SOURCE = "source"
    RETRY = "retry"


@dataclass(slots=True, eq=False)
class Claim:
    """Somebody here works on a partition of a source topic, or of its retry topic."""

    side: Side
    topic: PreparedTopics
    partition: int
    redirect: TopicPartition | None
    """Where its locks are; None while the auxiliary topics have no partner for it."""
    locks: SourceLocks = field(default_factory=SourceLocks)
    """Source side: the table's part for this partition, once ready."""
    progress: tuple[int | None, float] | None = None
    """How far its restoring has come, and since when it is there (monotonic)."""
    restoring_since: float | None = None
    """When the reader took it up (monotonic)."""
    restore_to: int | None = None
    """The redirect partition's end, read after the claim was made: everything that a former owner wrote."""
    ready: bool = False
    released: bool = False
    lost: bool = False
    """The group has gone on without us; our loop learns of it next. Set by the client's thread."""
    path: WritePath | None = None
    """Where its writes go; None: where the tracker's own do."""
    error: KafetrainError | None = None
    adopt: bool = False
    """Source side: the committed offset does not carry our metadata, so the start position is to be committed with
    it before the first record is handled. Otherwise a crash before the first commit would look like a rewind."""
    set_start: bool = False
    """Let the reader commit it: nobody here owns the source consumer."""
    writing: dict[ChainKey, Turn] = field(default_factory=dict)
    """Source side: by chain, the last turn that is not over: its next record waits for that."""
    under_way: set[Future[Any]] = field(default_factory=set)
    """Source side: redirects that are not durable yet."""

    def may_run(self, record: Record) -> bool:
        """Nothing is known of the record and of its key: it may run without a further look. Any thread, without the
        mutex, as long as records of a key come one after the other: what became of the one before is known by then.
        """
        if not self.ready or self.released:  # first: the locks may be another object a moment later
            return False
        key = record.key
        if key is None:
            key = record.offset
        elif type(key) is not bytes:
            return False
        # In this order: a redirect that ends moves its record from `writing` to the chains.
        return not (key in self.writing or key in self.locks.chains.kept or record.offset in self.locks.entries.packed)

    @property
    def is_writing(self) -> bool:
        """A redirect is in flight. Any thread."""
        return bool(self.under_way)

    @property
    def metadata(self) -> str:
        """What every commit of this source partition carries."""
        return f"{METADATA_PREFIX}{self.locks.floor}"


class TrackerState:
    """Any thread. Methods take the mutex themselves; it is reentrant."""

    def __init__(self) -> None:
        self.mutex = threading.RLock()
        self.changed = threading.Condition(self.mutex)
        """Notified when a claim is ready or failed, when one is made, and when a table moves on."""
        self.topics: dict[str, PreparedTopics] = {}
        self.by_retry_topic: dict[str, PreparedTopics] = {}
        self.source_claims: dict[TopicPartition, Claim] = {}
        self.retry_claims: dict[TopicPartition, Claim] = {}
        self.tables: dict[TopicPartition, LockTable] = {}
        self.floors: dict[TopicPartition, int] = {}
        """Of source partitions, as last known: what a commit around a rebalance carries."""
        self.relisteners: dict[TopicPartition, Callable[[], None]] = {}
        """Per redirect partition: told that its table was rebuilt, with the mutex held."""
        self.listeners: dict[TopicPartition, Listener] = {}
        """Per redirect partition: told which chain and id changed, with the mutex held."""
        self.restored_in_s: dict[TopicPartition, float] = {}
        """Source partitions: how long restoring their locks took, the last time."""
        self.orphans: Counter[TopicPartition] = Counter()
        """Source partitions: locks released because their record can never arrive."""
        self.malformed: Counter[TopicPartition] = Counter()
        """Partitions of redirect and retry topics: records read that are damaged, or that nobody of ours wrote."""
        self.retry_consumers: set[str] = set()
        """Source topics whose retry topic a loop of ours reads."""
        self.error: BaseException | None = None
        """What ended one of the tracker's own threads."""

    # Topics and claims

    def topic(self, name: str) -> PreparedTopics:
        """A tracked source topic; `NotTrackedError`."""
        try:
            return self.topics[name]
        except KeyError:
            raise NotTrackedError(name, tuple(sorted(self.topics))) from None

    def add_topic(self, topic: PreparedTopics) -> None:
        with self.mutex:
            self.topics[topic.names.source] = topic
            self.by_retry_topic[topic.names.retry] = topic

    def drop_topic(self, name: str) -> None:
        """As if it had never been tracked."""
        with self.changed:
            topic = self.topics.pop(name, None)
            if topic is None:
                return
            self.by_retry_topic.pop(topic.names.retry, None)
            for side in Side:
                self.release(side, topic)
            for place in [place for place in self.tables if place.topic == topic.names.redirect]:
                del self.tables[place]

    def forget_all(self) -> None:
        """As new: the tracker is closed. Whoever waits for a claim is told so."""
        with self.changed:
            for claim in self.all_claims():
                claim.released, claim.ready = True, False
            for known in (self.topics, self.by_retry_topic, self.source_claims, self.retry_claims, self.tables):
                known.clear()
            self.error = None
            self.changed.notify_all()

    def replace_topic(self, topic: PreparedTopics) -> None:
        """The topic has grown: claims that had no partner get one. No other partition moves."""
        with self.changed:
            self.add_topic(topic)
            for claim in self.all_claims():
                if claim.topic.names == topic.names:
                    claim.topic = topic
                    if claim.redirect is None:
                        claim.redirect = self.redirect_of(claim.side, topic, claim.partition)
            self.changed.notify_all()

    def claim(
        self,
        side: Side,
        topic: PreparedTopics,
        partitions: Iterable[int],
        *,
        set_start: bool = False,
        path: WritePath | None = None,
    ) -> None:
        """These partitions are ours. Returns at once; a claim is ready once its locks are restored."""
        claims, name = self._claims(side, topic)
        with self.changed:
            for partition in partitions:
                place = TopicPartition(name, partition)
                old = claims.get(place)
                if old is not None:
                    old.released = True
                claims[place] = Claim(
                    side, topic, partition, self.redirect_of(side, topic, partition), set_start=set_start, path=path
                )
            self.changed.notify_all()

    def release(self, side: Side, topic: PreparedTopics, partitions: Collection[int] | None = None) -> None:
        """These partitions (None: all of the topic's) are no longer ours: open sequences stop at their next write."""
        claims, name = self._claims(side, topic)
        with self.changed:
            for place in [p for p in claims if p.topic == name and (partitions is None or p.partition in partitions)]:
                claims.pop(place).released = True
            self.changed.notify_all()

    def lose(self, side: Side, places: Collection[TopicPartition]) -> None:
        """The group has given these to others already: no transaction may be committed for them any more."""
        claims = self.source_claims if side is Side.SOURCE else self.retry_claims
        with self.mutex:
            for place in places:
                if (claim := claims.get(place)) is not None:
                    claim.lost = True

    def _claims(self, side: Side, topic: PreparedTopics) -> tuple[dict[TopicPartition, Claim], str]:
        if side is Side.SOURCE:
            return self.source_claims, topic.names.source
        return self.retry_claims, topic.names.retry

    @staticmethod
    def redirect_of(side: Side, topic: PreparedTopics, partition: int) -> TopicPartition | None:
        """The redirect partition with the locks of a source partition, or of what a retry partition holds."""
        if side is Side.SOURCE:
            return topic.redirect_for(partition)
        return TopicPartition(topic.names.redirect, partition) if partition < topic.width else None

    def all_claims(self) -> list[Claim]:
        with self.mutex:
            return [*self.source_claims.values(), *self.retry_claims.values()]

    def check(self) -> None:
        """Raise what ended one of the tracker's threads."""
        if self.error is not None:
            raise self.error

    def ready_claim(self, side: Side, place: TopicPartition) -> Claim:
        """The claim on a source partition, or on a retry partition; blocks until its locks are restored.

        Raises what prevents that, and `NotTrackedError` where the partition is not claimed (any more). Bounded: the
        reader gives every claim that makes no progress an error, but for one that waits for its partner to be created.
        """
        claims = self.source_claims if side is Side.SOURCE else self.retry_claims
        with self.changed:
            while True:
                claim = claims.get(place)
                self.check()
                if claim is None:
                    raise NotTrackedError(f"{place.topic}[{place.partition}]", tuple(sorted(self.topics)))
                if claim.error is not None:
                    raise claim.error
                if claim.ready:
                    return claim
                self.changed.wait(timeout=0.5)

    # Tables

    def put(self, redirect: TopicPartition, partition: int, offset: int, entry: Entry) -> None:
        """The entry is in the log at `entry.log_offset`."""
        with self.mutex:
            if (table := self.tables.get(redirect)) is not None:
                if table.rebuilt is not None:
                    table.rebuilt.source(partition).put(offset, entry)
                self._tell(redirect, partition, table.source(partition).put(offset, entry), offset)

    def end(
        self, redirect: TopicPartition, partition: int, offset: int, key: bytes | None, at: int, *, ours: bool
    ) -> None:
        """The tombstone is in the log at offset `at`."""
        with self.mutex:
            if (table := self.tables.get(redirect)) is not None:
                if table.rebuilt is not None:
                    table.rebuilt.source(partition).end(offset, key, at, ours=ours)
                self._tell(redirect, partition, table.source(partition).end(offset, key, at, ours=ours), offset)

    def register(self, redirect: TopicPartition, group: str, registration: Registration | None) -> None:
        """The group's registration is in the log, or was taken back."""
        with self.mutex:
            if (table := self.tables.get(redirect)) is None:
                return
            for known in (table, table.rebuilt):
                if known is None:
                    continue
                old = known.registrations.get(group)
                if registration is None:
                    known.registrations.pop(group, None)
                elif old is None or old.log_offset <= registration.log_offset:
                    known.registrations[group] = registration

    def _tell(self, redirect: TopicPartition, partition: int, chain: Chain | None, offset: int) -> None:
        if chain is not None and (listener := self.listeners.get(redirect)) is not None:
            listener(partition, chain.key, offset)
