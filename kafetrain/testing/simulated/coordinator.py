"""The transaction coordinator: who may write under which id, what is open of it, and how far its end has come.

    init ─> append ... ─> add_offsets ─> decide ─> a marker in each partition, and the group's offsets ─> over

An id has an epoch, which each producer that begins with it raises: whoever has an older one is fenced. Once decided, a
transaction ends as decided, however late its markers come; readers of committed records wait for those.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kafetrain.client.ports import ClientError, Committed, OutgoingRecord
from kafetrain.record import TopicPartition
from kafetrain.testing.simulated.group import Membership

if TYPE_CHECKING:
    from kafetrain.testing.simulated.core import ClusterCore

__all__ = ["Coordinator", "OngoingTransaction"]


class OngoingTransaction:
    """A transaction of a producer that is not over. `decided`: None while it is open, then whether it is committed."""

    def __init__(self, core: ClusterCore, id: str, author: str) -> None:
        self._core, self.id, self.author = core, id, author
        self.number = core.number()
        self.since = core.clock.monotonic()
        self.decided: bool | None = None
        self.places: list[TopicPartition] = []
        """Partitions that its marker is missing in."""
        self.groups: list[str] = []
        """Consumer groups that do not know of its end."""

    def write_marker(self) -> None:
        """The next one: of a partition, or of a group's offsets. Only once it is decided."""
        if self.decided is None:
            raise ValueError(f"the transaction of {self.id} is open: neither committed nor aborted")
        with self._core.mutex:
            if self.places:
                place = self.places.pop(0)
                if (log := self._core.find_log(place)) is not None:
                    log.end_transaction(self.number, commit=self.decided)
            elif self.groups:
                self._core.group(self.groups.pop(0)).end_transaction(self.number, commit=self.decided)
        self._core.wake()

    @property
    def is_over(self) -> bool:
        return self.decided is not None and not self.places and not self.groups

    def finish(self) -> None:
        """Every marker."""
        while not self.is_over:
            self.write_marker()

    def __str__(self) -> str:
        state = "open" if self.decided is None else "committing" if self.decided else "aborting"
        left = [f"{place.topic}[{place.partition}]" for place in self.places] + self.groups
        return f"{self.author}: {state}, {', '.join(left)}"


class Coordinator:
    """The cluster's mutex guards it. Without a producer of its own, a transaction is aborted after `timeout_s`."""

    def __init__(self, core: ClusterCore, timeout_s: float) -> None:
        self._core, self.timeout_s = core, timeout_s
        self._epochs: dict[str, int] = {}
        self._last: dict[str, OngoingTransaction] = {}

    def ongoing(self) -> list[OngoingTransaction]:
        """Open ones, and those whose markers are not all there."""
        return [transaction for transaction in self._last.values() if not transaction.is_over]

    def init(self, id: str) -> int:
        """A new producer's epoch. What is open of the id is aborted, what is decided is finished."""
        self._end_former(id)
        self._epochs[id] = self._epochs.get(id, -1) + 1
        return self._epochs[id]

    def append(self, id: str, epoch: int, record: OutgoingRecord, author: str) -> int:
        """Within the id's transaction, which begins with this where none is open. Returns the offset."""
        self._check(id, epoch)
        transaction, place = self._opened(id, author), TopicPartition(record.topic, record.partition)
        if place not in transaction.places:
            transaction.places.append(place)
        timestamp = self._core.clock.now_ms() if record.timestamp_ms is None else record.timestamp_ms
        headers = [(name, value or b"") for name, value in record.headers]
        log = self._core.log(place)
        return log.append(record.key, record.value, headers, timestamp, author, transaction.number)

    def add_offsets(
        self, id: str, epoch: int, author: str, member: Membership, next_offsets: Mapping[TopicPartition, Committed]
    ) -> None:
        """To be committed with the transaction. Fenced by the member's generation, now and never later."""
        self._check(id, epoch)
        transaction, group = self._opened(id, author), self._core.group(member.group)
        group.commit_later(member, transaction.number, next_offsets)
        if group.name not in transaction.groups:
            transaction.groups.append(group.name)

    def decide(self, id: str, epoch: int, *, commit: bool) -> OngoingTransaction | None:
        """Its markers may be written from now on. None: nothing is open."""
        self._check(id, epoch)
        transaction = self._last.get(id)
        if transaction is None or transaction.decided is not None:
            return None
        transaction.decided = commit
        return transaction

    def check(self) -> None:
        """Abort what has had its time."""
        now = self._core.clock.monotonic()
        for id, transaction in tuple(self._last.items()):
            if transaction.decided is None and now >= transaction.since + self.timeout_s:
                self.init(id)

    def _check(self, id: str, epoch: int) -> None:
        if epoch != self._epochs.get(id):
            raise ClientError(f"InvalidProducerEpoch: another producer of {id} has begun", retriable=True)

    def _opened(self, id: str, author: str) -> OngoingTransaction:
        found = self._last.get(id)
        if found is None or found.decided is not None:
            self._end_former(id)
            found = self._last[id] = OngoingTransaction(self._core, id, author)
        return found

    def _end_former(self, id: str) -> None:
        former = self._last.pop(id, None)
        if former is not None:
            former.decided = bool(former.decided)
            former.finish()
