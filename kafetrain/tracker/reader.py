"""The redirect reader: fills the lock tables from the redirect topic.

One thread, one consumer without a group: it reads each redirect partition that a claim needs from its beginning, and
then follows it. A claim is ready once its table has reached the end offset that was read *after* the claim was made.
An earlier one would lose:
  we         have read 17 as the end offset and restored the table to it
  old owner  m1 of key A fails: its entry is acknowledged at 17; it commits past m1 and lets go
  we         are assigned, start at m2 of key A, see no lock: m2 runs before m1
An owner lets go with no write in flight, so what is read from the assignment on covers all of its entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from loguru import logger

from kafetrain.client.ports import AdminPort, ClientError, Committed, ConsumerPort, NotOwnerError, OffsetOutOfRangeError
from kafetrain.clock import Clock
from kafetrain.core.lock_table import LockTable
from kafetrain.errors import ConfigurationError, KafetrainError, LogTruncatedError, RestoreTimeoutError
from kafetrain.record import TopicPartition, decimal
from kafetrain.settings import Settings
from kafetrain.topic_setup import prepare_topics
from kafetrain.tracker.applied_log import AppliedLog
from kafetrain.tracker.state import METADATA_PREFIX, Claim, Side, TrackerState

__all__ = ["RedirectReader"]

FORGET_EVERY_S = 5.0
LOOK_FOR_PARTNERS_EVERY_S = 30.0
KEEP_UNNEEDED_S = 60.0


class RedirectReader:
    """A loop. `step` is short while brokers answer; its requests are bounded by the client's timeouts."""

    def __init__(
        self,
        state: TrackerState,
        consumer: ConsumerPort,
        admin: AdminPort,
        settings: Settings,
        clock: Clock,
        max_wait: timedelta = timedelta(milliseconds=100),
    ) -> None:
        self._state, self._consumer, self._admin = state, consumer, admin
        self._settings, self._clock, self._max_wait = settings, clock, max_wait
        self._log = AppliedLog(state, settings.group_id)
        self._assigned: frozenset[TopicPartition] = frozenset()
        self._next_look = clock.monotonic()
        self._unneeded_since: dict[TopicPartition, float] = {}
        self._passed: set[TopicPartition] = set()  # purged while we were reading below
        self._next_forget = clock.monotonic() + FORGET_EVERY_S

    def step(self) -> None:
        """Take new claims, read on, make claims ready, forget what cannot matter any more."""
        self._look_for_partners()
        taken = self._take_claims()
        if self._passed:
            self._rebuild()
        if taken:
            self._settle_claims()  # what is read already need not wait for what comes next
        if self._state.tables:
            self._read()
        else:
            with self._state.changed:
                self._state.changed.wait(self._max_wait.total_seconds())
        self._settle_claims()
        if self._clock.monotonic() >= self._next_forget:
            self._forget()

    def close(self) -> None:
        self._consumer.close()

    # Claims

    def _look_for_partners(self) -> None:
        """A source that has grown: its new partitions are handled once the auxiliary topics have grown as well."""
        claims = [claim for claim in self._state.all_claims() if claim.redirect is None]
        if not claims or self._clock.monotonic() < self._next_look:
            return
        self._next_look = self._clock.monotonic() + LOOK_FOR_PARTNERS_EVERY_S
        for name in {claim.topic.names.source for claim in claims}:
            logger.bind(topic=name).warning(
                "the source topic has grown: its new partitions wait for the auxiliary topics"
            )
            try:
                self._state.replace_topic(prepare_topics(self._admin, self._settings, name, clock=self._clock))
            except KafetrainError as error:
                logger.bind(topic=name).warning("auxiliary topics not grown, trying again: {}", error)

    def _take_claims(self) -> bool:
        """True: some know now how far their locks are to be restored."""
        state = self._state
        with state.mutex:
            needed = {claim.redirect for claim in state.all_claims() if claim.redirect is not None}
            new = [c for c in state.all_claims() if c.restore_to is None and c.redirect is not None and c.error is None]
            for place in self._unneeded(needed):
                del state.tables[place]
            added = needed - state.tables.keys()
            for place in added:
                state.tables[place] = LockTable()
            wanted = frozenset(state.tables)
        if added or wanted != self._assigned:
            # What is read on keeps its position; what is new, or was dropped and is back, starts at its beginning.
            if (kept := self._assigned & wanted - added) != self._assigned:
                self._consumer.assign(dict.fromkeys(kept))
            self._consumer.assign(dict.fromkeys(wanted))
            self._assigned = wanted
        if new:
            try:
                self._restore(new)
            except ClientError as error:
                self._no_progress(new, error)
        return bool(new)

    def _unneeded(self, needed: set[TopicPartition]) -> list[TopicPartition]:
        """Tables that nobody has needed for a while. Most partitions come back right after a rebalance."""
        now = self._clock.monotonic()
        unneeded = self._state.tables.keys() - needed
        self._unneeded_since = {place: self._unneeded_since.get(place, now) for place in unneeded}
        return [place for place, since in self._unneeded_since.items() if now - since >= KEEP_UNNEEDED_S]

    def _restore(self, claims: Sequence[Claim]) -> None:
        began = self._clock.monotonic()
        ends = self._consumer.end_offsets({c.redirect for c in claims if c.redirect is not None})
        sources = {TopicPartition(c.topic.names.source, p) for c in claims for p in self._sources_of(c)}
        committed = self._admin.committed(self._settings.group_id, sources)
        with self._state.mutex:
            for claim in claims:
                if claim.redirect is None or claim.redirect not in self._state.tables:
                    continue
                table = self._state.tables[claim.redirect]
                if claim.restoring_since is None:
                    claim.restoring_since = began
                claim.restore_to = ends[claim.redirect]
                for partition in self._sources_of(claim):
                    offset = committed.get(TopicPartition(claim.topic.names.source, partition))
                    locks = table.source(partition)
                    locks.committed = 0 if offset is None else offset.next_offset
                    if claim.side is Side.SOURCE:
                        claim.locks = locks
                        floor = _floor(offset)
                        claim.adopt = floor is None
                        locks.set_floor(claim.restore_to if floor is None else floor)
        for claim in claims:
            if claim.adopt and claim.set_start:
                self._set_start(claim, committed.get(TopicPartition(claim.topic.names.source, claim.partition)))

    @staticmethod
    def _sources_of(claim: Claim) -> range | tuple[int, ...]:
        if claim.side is Side.SOURCE:
            return (claim.partition,)
        return range(claim.partition, claim.topic.source_partitions, claim.topic.width)

    def _set_start(self, claim: Claim, committed: Committed | None) -> None:
        place = TopicPartition(claim.topic.names.source, claim.partition)
        try:
            if committed is not None:
                start = committed.next_offset
            elif self._settings.auto_offset_reset == "latest":
                start = self._consumer.end_offsets([place])[place]
            else:
                start = self._consumer.beginning_offsets([place])[place]
            self._admin.set_committed(self._settings.group_id, {place: Committed(start, claim.metadata)})
        except NotOwnerError:
            pass  # the group has members: whoever started it has done this, or the first commit will
        except ClientError as error:
            logger.bind(topic=place.topic, partition=place.partition).debug("start position not committed: {}", error)

    def _settle_claims(self) -> None:
        with self._state.changed:
            waiting = [c for c in self._state.all_claims() if not c.ready and c.error is None]
            for claim in waiting:
                if claim.redirect is None or claim.restore_to is None:
                    continue
                table = self._state.tables.get(claim.redirect)
                if table is None:
                    continue
                if table.rebuilt is not None and table.rebuilt.next_offset >= claim.restore_to:
                    table.adopt(table.rebuilt)
                    table.rebuilt = None
                    if (relisten := self._state.relisteners.get(claim.redirect)) is not None:
                        relisten()
                if table.rebuilt is None and table.next_offset >= claim.restore_to:
                    claim.error = table.refused or self._other_incarnation(claim, table)
                    claim.ready = claim.error is None
                    if claim.side is Side.SOURCE:
                        place = TopicPartition(claim.topic.names.source, claim.partition)
                        self._state.floors[place] = claim.locks.floor
                        self._state.restored_in_s[place] = self._clock.monotonic() - (claim.restoring_since or 0.0)
            self._state.changed.notify_all()
        self._no_progress([c for c in waiting if not c.ready and c.restore_to is not None], None)

    def _other_incarnation(self, claim: Claim, table: LockTable) -> KafetrainError | None:
        ours = table.registrations.get(self._settings.group_id)
        topic = claim.topic
        if ours is None or not ours.topic_id or not topic.topic_id or ours.topic_id == topic.topic_id:
            return None
        return ConfigurationError(
            f"topic {topic.names.source} was deleted and created again (its id is {topic.topic_id}, the locks of group "
            f"{self._settings.group_id} in {topic.names.redirect} are of {ours.topic_id}): those locks belong to "
            f"records that no longer exist. Stop the group and end them: kafetrain topics reset {topic.names.source} "
            f"--group {self._settings.group_id} --dead-letter (or --forget, which drops what still waits)"
        )

    def _no_progress(self, claims: Sequence[Claim], error: ClientError | None) -> None:
        """Give claims that wait too long an error, and those that a broker refused at once."""
        now, limit = self._clock.monotonic(), self._settings.state_restore_timeout.total_seconds()
        with self._state.changed:
            for claim in claims:
                if claim.redirect is None:
                    continue
                table = self._state.tables.get(claim.redirect)
                position = None if table is None else (table.rebuilt or table).next_offset
                if claim.progress is None or (claim.progress[0] != position and error is None):
                    claim.progress = (position, now)
                elif now - claim.progress[1] >= limit or (error is not None and not error.retriable):
                    claim.error = RestoreTimeoutError(
                        claim.redirect.topic, claim.redirect.partition, position, claim.restore_to
                    )
                    if error is not None:
                        claim.error.__cause__ = error
                    self._state.changed.notify_all()

    # Reading

    def _read(self) -> None:
        try:
            batches = self._consumer.poll(self._max_wait)
        except OffsetOutOfRangeError as error:
            self._passed |= error.partitions
            return
        with self._state.changed:
            for place, records in batches.items():
                table = self._state.tables.get(place)
                if table is None:
                    continue
                self._log.apply(place, table, records)
                filled = table.rebuilt or table
                filled.next_offset = max(filled.next_offset, records[-1].offset + 1)
            for place, table in self._state.tables.items():
                filled = table.rebuilt or table
                # Past gaps and transaction markers, where no record is left to read.
                if (position := self._consumer.position(place)) is not None:
                    filled.next_offset = max(filled.next_offset, position)
            if batches:
                self._state.changed.notify_all()

    def _rebuild(self) -> None:
        """The log's beginning has passed us: what we know may be stale. Read it again from there.

        Until that has reached the end, nobody works with the table, and what it knew stays: that an id is not in it
        proves that the id has ended, which a table that is half filled must not seem to say.
        """
        try:
            starts, ends = self._consumer.beginning_offsets(self._passed), self._consumer.end_offsets(self._passed)
        except ClientError as error:
            if not error.retriable:
                raise
            return
        with self._state.changed:
            for place in self._passed & self._state.tables.keys():
                table = self._state.tables[place]
                logger.bind(topic=place.topic, partition=place.partition).warning("purged past us: reading it again")
                if ends[place] < table.next_offset:
                    table.refused = LogTruncatedError(place.topic, place.partition, table.next_offset - 1, ends[place])
                table.rebuilt = table.fresh()
                for claim in self._state.all_claims():
                    if claim.redirect == place:
                        claim.ready, claim.restore_to = False, None
                        claim.restoring_since = claim.progress = None
                self._consumer.seek(place, starts[place])
        self._passed.clear()

    # Forgetting

    def _forget(self) -> None:
        """Drop ended ids below the committed source offsets: those records are not delivered again."""
        self._next_forget = self._clock.monotonic() + FORGET_EVERY_S
        with self._state.mutex:
            remembered = {
                TopicPartition(claim.topic.names.source, partition): (table, partition)
                for claim in self._state.all_claims()
                if claim.redirect is not None and (table := self._state.tables.get(claim.redirect)) is not None
                for partition, locks in table.sources.items()
                if locks.ended
            }
        if not remembered:
            return
        try:
            committed = self._admin.committed(self._settings.group_id, remembered.keys())
        except ClientError as error:
            logger.debug("committed offsets not read, ended ids are kept: {}", error)
            return
        with self._state.mutex:
            for place, offset in committed.items():
                table, partition = remembered[place]
                table.source(partition).forget_below(offset.next_offset, table.next_offset)


def _floor(committed: Committed | None) -> int | None:
    """What our own commits carry; None for a commit of somebody else, or none."""
    if committed is None or not committed.metadata.startswith(METADATA_PREFIX):
        return None
    return decimal(committed.metadata.removeprefix(METADATA_PREFIX))
