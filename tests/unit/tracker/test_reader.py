"""The redirect reader over a log in memory: a log that is read again from its beginning."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from kafetrain import Settings
from kafetrain.client.ports import Committed
from kafetrain.core.entry import Entry, encode_entry
from kafetrain.core.headers import tombstone_headers
from kafetrain.core.lock_table import SourceLocks
from kafetrain.record import MessageId, TopicPartition
from kafetrain.topic_setup import PreparedTopics
from kafetrain.topics import AuxiliaryTopics
from kafetrain.tracker.reader import RedirectReader
from kafetrain.tracker.state import Side, TrackerState
from tests.unit.fakes import FakeAdmin
from tests.unit.log_fakes import FakeLogClient

KEY = b"k"


@dataclass
class Admin(FakeAdmin):
    offsets: dict[TopicPartition, Committed] = field(default_factory=dict)

    def committed(self, group: str, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, Committed]:
        return {place: self.offsets[place] for place in partitions if place in self.offsets}


class World:
    """A topic of two partitions, its redirect log, and the reader that the test steps."""

    def __init__(self) -> None:
        self.admin = Admin()
        self.client = FakeLogClient(self.admin)
        self.state = TrackerState()
        self.settings = Settings(group_id="billing")
        names = AuxiliaryTopics.of(self.settings, "orders")
        self.topic = PreparedTopics(names, 2, dict.fromkeys(names.auxiliary, 2), "id-1")
        self.state.add_topic(self.topic)
        self.reader = RedirectReader(self.state, self.client.reader(), self.admin, self.settings, self.client.clock)

    def redirect(self, partition: int = 0) -> TopicPartition:
        return TopicPartition(self.topic.names.redirect, partition)

    def lock(self, offset: int, partition: int = 0) -> int:
        return self._log(offset, encode_entry(Entry(KEY, attempt=1)), partition)

    def free(self, offset: int, partition: int = 0) -> int:
        return self._log(offset, None, partition)

    def _log(self, offset: int, value: bytes | None, partition: int) -> int:
        id = str(MessageId("billing", "orders", partition, offset)).encode()
        headers = tombstone_headers(KEY) if value is None else []
        return self.client.append(self.redirect(partition).topic, partition, id, value, headers)

    def commit(self, next_offset: int, metadata: str, partition: int = 0) -> None:
        self.admin.offsets[TopicPartition("orders", partition)] = Committed(next_offset, metadata)

    def claim(self, side: Side, *partitions: int) -> None:
        self.state.claim(side, self.topic, partitions)

    def is_ready(self, side: Side) -> bool:
        claims = self.state.source_claims if side is Side.SOURCE else self.state.retry_claims
        for claim in claims.values():
            if claim.error is not None:
                raise claim.error
        return all(claim.ready for claim in claims.values())

    def restore(self, side: Side) -> None:
        for _ in range(100):
            self.reader.step()
            if self.is_ready(side):
                return
        raise AssertionError("not restored")

    def locks(self, partition: int = 0) -> SourceLocks:
        return self.state.tables[self.redirect(partition)].source(partition)


def test_a_rewind_counts_also_while_the_log_is_read_again() -> None:
    """Records that an operator wants again have not ended, whenever that is asked."""
    world = World()
    for offset in range(4):
        world.lock(offset)
    world.claim(Side.RETRY, 0)
    world.restore(Side.RETRY)
    for offset in range(4):
        world.free(offset)
    world.client.beginning[world.redirect()] = 5  # purged past the reader, which has come to 4
    world.reader.step()
    world.reader.step()
    assert world.state.tables[world.redirect()].rebuilt is not None
    world.commit(0, "")  # the group's offsets are reset
    world.claim(Side.SOURCE, 0)
    world.restore(Side.SOURCE)
    assert world.locks().floor == 8
    assert (world.locks().ended, len(world.locks().chains)) == ({}, 0)


def test_what_is_read_again_later_has_all_of_its_time() -> None:
    """Two partitions are purged past the reader, an hour after they were restored."""
    world = World()
    for partition in (0, 1):
        world.commit(0, "kafetrain:0", partition)
        for offset in range(2):
            world.lock(offset, partition)
    world.claim(Side.SOURCE, 0, 1)
    world.restore(Side.SOURCE)
    world.client.clock.wait(3600)
    for partition in (0, 1):
        for offset in range(2, 6):
            world.lock(offset, partition)
        world.client.beginning[world.redirect(partition)] = 4
    for _ in range(5):
        world.reader.step()
    world.restore(Side.SOURCE)
    assert sorted(world.locks(1).entries) == [4, 5]
    assert max(world.state.restored_in_s.values()) < 60
