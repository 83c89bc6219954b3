"""The consumer port on a simulated cluster.

What a real client does on its own thread (heartbeats apart, which only a killed or cut-off instance misses) happens in
`poll`: joining, giving partitions up, learning of an assignment and of its start positions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from loguru import logger

from kafetrain.client.ports import ClientError, Committed, NotOwnerError, OffsetOutOfRangeError, RebalanceEvents
from kafetrain.record import Record, TopicPartition
from kafetrain.testing.simulated.faults import Request
from kafetrain.testing.simulated.group import Group, Member, Membership, names_of

if TYPE_CHECKING:
    from kafetrain.testing.simulated.core import ClusterCore, Instance

__all__ = ["SimulatedConsumer"]

CLOSE_TIMEOUT_S = 0.5
"""What `close` waits at most for work in flight."""


class SimulatedConsumer:
    """A `ConsumerPort`. `group` None: a reader, for which a position out of range is an error."""

    def __init__(
        self,
        core: ClusterCore,
        instance: Instance,
        group: str | None,
        auto_offset_reset: str = "",
        *,
        session_s: float,
        patience_s: float,
    ) -> None:
        self._core, self._instance = core, instance
        self._group_name, self._reset = group, auto_offset_reset
        self._session_s, self._patience_s = session_s, patience_s
        self._topics: frozenset[str] = frozenset()
        self._events: RebalanceEvents | None = None
        self._member: Member | None = None
        self._generation = -1
        self._answer: Callable[[], Mapping[TopicPartition, Committed] | None] | None = None
        self._positions: dict[TopicPartition, int | None] = {}
        self._paused: set[TopicPartition] = set()
        self._turn = 0  # which partition a poll begins with
        self._is_closed = False
        instance.on_silence.append(self._fall_silent)
        instance.on_voice.append(self._speak_again)

    def subscribe(self, topics: Collection[str], events: RebalanceEvents) -> None:
        self._topics, self._events = frozenset(topics), events

    def assign(self, positions: Mapping[TopicPartition, int | None]) -> None:
        with self._core.mutex:
            former, self._positions = self._positions, {}
            for place, next_offset in positions.items():
                self._positions[place] = former.get(place) if next_offset is None else next_offset
            self._paused &= positions.keys()

    def poll(self, timeout: timedelta, max_records: int = 500) -> Mapping[TopicPartition, Sequence[Record]]:
        batches: Mapping[TopicPartition, Sequence[Record]] = {}

        def look() -> bool:
            nonlocal batches
            if self._is_closed:
                return True
            self._keep_membership()
            batches = self._fetch(max_records)
            return bool(batches)

        self._core.wait_until(look, timeout.total_seconds())
        return batches

    def position(self, partition: TopicPartition) -> int | None:
        return self._positions.get(partition)

    def seek(self, partition: TopicPartition, next_offset: int) -> None:
        with self._core.mutex:
            if partition not in self._positions:
                raise NotOwnerError(f"{names_of([partition])} is not assigned here")
            self._positions[partition] = next_offset

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        with self._core.mutex:
            self._paused |= self._positions.keys() & set(partitions)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        with self._core.mutex:
            self._paused -= set(partitions)
        self._core.wake()

    def commit(self, next_offsets: Mapping[TopicPartition, Committed]) -> None:
        if not next_offsets:
            return
        lost = self._core.ask(self._instance, Request.COMMIT, {place.topic for place in next_offsets})
        with self._core.mutex:
            group = self._group()
            if strange := next_offsets.keys() - self._positions.keys():
                raise NotOwnerError(f"not committed: {names_of(strange)} went to another member of {group.name}")
            if self._member is None:
                raise NotOwnerError(f"not committed: this is no member of {group.name}")
            group.commit(self._member, next_offsets)
        if lost is not None:
            raise lost

    def membership(self) -> Membership:
        """For transactions. `NotOwnerError`: no member at the moment, as far as it knows."""
        with self._core.mutex:
            if self._group_name is None or self._member is None or self._generation < 0:
                raise NotOwnerError(f"this is no member of {self._group_name} at the moment")
            return Membership(self._group_name, self._member, self._generation)

    def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        lost = self._core.ask(self._instance, Request.OFFSETS, {place.topic for place in partitions})
        with self._core.mutex:
            found = {place: self._core.log(place).next_offset for place in partitions}
        if lost is not None:
            raise lost
        return found

    def beginning_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        lost = self._core.ask(self._instance, Request.OFFSETS, {place.topic for place in partitions})
        with self._core.mutex:
            found = {place: self._core.log(place).begin_offset for place in partitions}
        if lost is not None:
            raise lost
        return found

    def close(self) -> None:
        with self._core.mutex:
            if self._is_closed:
                return
            self._is_closed = True
        self._core.wake()
        owns = bool(self._positions) and self._group_name is not None and self._core.reaches(self._instance)
        if owns and not self._core.wait_until(self._let_go, CLOSE_TIMEOUT_S):
            logger.warning("a consumer of {} closes with work in flight, which will run again", self._group_name)
        with self._core.mutex:
            self._positions.clear()
            if self._member is not None and self._core.reaches(self._instance):
                self._group().leave(self._member)
            elif self._member is not None:
                self._fall_silent()
        self._core.wake()

    # Membership

    def _keep_membership(self) -> None:
        """One step towards having what the group gives us."""
        if self._events is None or not self._core.reaches(self._instance):
            return
        try:
            lost = self._core.ask(self._instance, Request.JOIN, self._topics)
        except ClientError as error:
            logger.debug("joining will go on: {}", error)
            return
        if lost is None:
            self._step_membership()

    def _step_membership(self) -> None:
        with self._core.mutex:
            group, member = self._group(), self._member
            if member is not None and group.members.get(member.id) is not member:
                gone, self._member, self._answer = frozenset(self._positions), None, None
                self._generation = -1
                self._positions.clear()
            else:
                gone = frozenset()
        if gone:
            self._tell("lost", gone)
        with self._core.mutex:
            group, member = self._group(), self._member
            has_to_join = member is None or (group.rebalancing and not member.joined)
            if not has_to_join and member is not None and member.generation != self._generation:
                self._learn(member)
                told = member.assigned
            else:
                told = frozenset()
        if told:
            self._tell("assigned", told)
        if has_to_join and self._let_go():
            self._join()

    def _learn(self, member: Member) -> None:
        self._generation = member.generation
        self._positions = dict.fromkeys(sorted(member.assigned))
        self._paused = set(member.assigned)

    def _join(self) -> None:
        with self._core.mutex:
            if self._member is None:
                id = f"{self._instance.name}-{self._core.number():04}"
                self._member = Member(id, self._instance.name, self._topics, self._patience_s, self._session_s)
            self._group().join(self._member)
        self._core.wake()

    def _let_go(self) -> bool:
        """Ask the owner what to commit of what we have; True once it is committed and forgotten."""
        places = frozenset(self._positions)
        if not places or self._events is None:
            return True
        if self._answer is None:
            try:
                self._answer = self._events.revoking(places)
            except Exception:
                logger.exception("the owner of a consumer failed in a rebalance")
                self._answer = dict
        next_offsets = self._answer()
        if next_offsets is None:
            return False
        try:
            self.commit(next_offsets)
        except ClientError as error:
            logger.warning("what was completed last is not committed and will run again: {}", error)
        with self._core.mutex:
            self._positions.clear()
            self._answer = None
        return True

    def _tell(self, what: str, partitions: frozenset[TopicPartition]) -> None:
        try:
            getattr(self._events, what)(partitions)
        except Exception:
            logger.exception("the owner of a consumer failed in a rebalance")

    def _group(self) -> Group:
        if self._group_name is None:
            raise ClientError("a reader has no group")
        return self._core.group(self._group_name)

    def _fall_silent(self) -> None:
        if self._member is not None and self._member.silent_since is None:
            self._member.silent_since = self._core.clock.monotonic()

    def _speak_again(self) -> None:
        if self._member is not None:
            self._member.silent_since = None

    # Fetching

    def _fetch(self, max_records: int) -> Mapping[TopicPartition, Sequence[Record]]:
        try:
            lost = self._core.ask(self._instance, Request.FETCH, {place.topic for place in self._positions})
        except ClientError as error:
            logger.debug("fetching will go on: {}", error)
            return {}
        if lost is not None:
            return {}
        left = max_records if self._instance.fetch_at_most is None else min(max_records, self._instance.fetch_at_most)
        found: dict[TopicPartition, Sequence[Record]] = {}
        with self._core.mutex:
            self._find_positions()
            self._check_ranges()
            places = sorted(place for place in self._positions if place not in self._paused)
            self._turn = (self._turn + 1) % (len(places) or 1)
            for place in places[self._turn :] + places[: self._turn]:
                position, log = self._positions[place], self._core.find_log(place)
                if position is None or log is None:
                    continue
                records, self._positions[place] = log.read(position, left)
                if records:
                    found[place] = records
                    left -= len(records)
        return found

    def _find_positions(self) -> None:
        for place, position in self._positions.items():
            log = self._core.find_log(place)
            if position is not None or log is None:
                continue
            group = None if self._group_name is None else self._group()
            if group is not None and not group.is_stable(place):
                continue  # a transaction of a former owner is not over
            committed = None if group is None else group.committed.get(place)
            self._positions[place] = self._reset_to(place) if committed is None else committed.next_offset

    def _check_ranges(self) -> None:
        beyond: list[TopicPartition] = []
        for place, position in self._positions.items():
            log = self._core.find_log(place)
            if position is not None and log is not None and not log.begin_offset <= position <= log.next_offset:
                beyond.append(place)
        if beyond and self._group_name is None:
            raise OffsetOutOfRangeError(beyond)
        for place in beyond:
            self._positions[place] = self._reset_to(place)

    def _reset_to(self, place: TopicPartition) -> int:
        log = self._core.log(place)
        return log.next_offset if self._reset == "latest" else log.begin_offset
