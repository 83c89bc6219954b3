"""A consumer group as its coordinator sees it: members, generations, who has what, and what is committed.

Rebalances are eager. The group waits for each member to give its partitions up and to join again, for `patience_s` at
most; who has not come by then is out. Assignment is by ranges over the members in the order of their ids.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from kafetrain.client.ports import Committed, NotOwnerError
from kafetrain.record import TopicPartition

__all__ = ["Group", "Member", "Membership", "names_of"]


@dataclass(slots=True, eq=False)
class Member:
    """One consumer's membership. It ends with the session; the consumer joins again as another member."""

    id: str
    client: str
    topics: frozenset[str]
    patience_s: float
    """How long a rebalance waits for it."""
    session_s: float
    joined: bool = False
    """It waits for the next generation, and has nothing."""
    generation: int = -1
    assigned: frozenset[TopicPartition] = frozenset()
    silent_since: float | None = None
    """Its heartbeats have stopped."""


@dataclass(frozen=True, slots=True)
class Membership:
    """As a member knows it, which may be out of date."""

    group: str
    member: Member
    generation: int


class Group:
    """Not thread-safe: the cluster's mutex guards it. `partitions_of` a topic; times are the clock's, monotonic."""

    def __init__(self, name: str, partitions_of: Callable[[str], int], now: Callable[[], float]) -> None:
        self.name = name
        self._partitions_of, self._now = partitions_of, now
        self.members: dict[str, Member] = {}
        self.generation = 0
        self.rebalancing = False
        self._wait_until = 0.0
        self.committed: dict[TopicPartition, Committed] = {}
        self._pending: dict[int, dict[TopicPartition, Committed]] = {}
        """Offsets by the transactions that they are committed with, should these be."""

    def join(self, member: Member) -> None:
        """A new member, or one that has given its partitions up."""
        self.members[member.id] = member
        if not self.rebalancing:
            self.rebalance()
        member.joined, member.assigned = True, frozenset()
        self.check()

    def leave(self, member: Member) -> None:
        if self.members.pop(member.id, None) is not None:
            self.rebalance()
            self.check()

    def rebalance(self) -> None:
        """Everybody has to give up what it has, and to join again."""
        if not self.rebalancing:
            self._wait_until = self._now() + max((m.patience_s for m in self.members.values()), default=0.0)
        self.rebalancing = bool(self.members)

    def check(self) -> None:
        """Let sessions end that have had their time, and the rebalance that waits for nobody any more."""
        now = self._now()
        ended = [m for m in self.members.values() if m.silent_since is not None and now >= m.silent_since + m.session_s]
        for member in ended:
            del self.members[member.id]
        if ended:
            self.rebalance()
        if not self.rebalancing:
            return
        if now >= self._wait_until:
            self.members = {id: member for id, member in self.members.items() if member.joined}
        if all(member.joined for member in self.members.values()):
            self._begin_generation()

    def commit(self, member: Member, next_offsets: Mapping[TopicPartition, Committed]) -> None:
        """Fenced by membership and generation; a member may still commit while the group waits for it."""
        self._check(member, member.generation)
        self.committed |= next_offsets

    def commit_later(self, by: Membership, transaction: int, next_offsets: Mapping[TopicPartition, Committed]) -> None:
        """As `commit`, by a transaction: they count once that is committed."""
        self._check(by.member, by.generation)
        self._pending.setdefault(transaction, {}).update(next_offsets)

    def end_transaction(self, transaction: int, *, commit: bool) -> None:
        offsets = self._pending.pop(transaction, {})
        if commit:
            self.committed |= offsets

    def is_stable(self, place: TopicPartition) -> bool:
        """No transaction that is not over may still move the committed offset."""
        return not any(place in offsets for offsets in self._pending.values())

    def _check(self, member: Member, generation: int) -> None:
        if self.members.get(member.id) is not member or generation != self.generation:
            raise NotOwnerError(
                f"not committed: {member.id} is no member of {self.name} in generation {self.generation}"
            )

    def _begin_generation(self) -> None:
        self.rebalancing = False
        self.generation += 1
        for id, partitions in self._ranges().items():
            member = self.members[id]
            member.joined, member.generation, member.assigned = False, self.generation, frozenset(partitions)

    def _ranges(self) -> dict[str, list[TopicPartition]]:
        shares: dict[str, list[TopicPartition]] = {id: [] for id in self.members}
        for topic in sorted({topic for member in self.members.values() for topic in member.topics}):
            ids = sorted(id for id, member in self.members.items() if topic in member.topics)
            count = self._partitions_of(topic)
            for at, id in enumerate(ids):
                first, last = at * count // len(ids), (at + 1) * count // len(ids)
                shares[id] += [TopicPartition(topic, number) for number in range(first, last)]
        return shares


def names_of(partitions: Collection[TopicPartition]) -> str:
    """For errors."""
    return ", ".join(f"{topic}[{number}]" for topic, number in sorted(partitions))
