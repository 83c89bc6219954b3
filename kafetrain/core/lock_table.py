"""The locks of one redirect partition, in memory.

What the log says about each message id, last word wins, plus our own writes as soon as they are acknowledged:
such a write shadows every log record of its id with a lower offset. The table also remembers ids that have ended,
as long as their source record may be delivered again. Every change is "this id is now ...", so applying one twice,
or an older one late, changes nothing.

Pure and not thread-safe: the tracker's mutex guards it. O(1) a change, but for records that arrive out of source
order.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import structs

from kafetrain.core.chain import Chain, ChainKey, Chains, chain_key
from kafetrain.core.entries import Entries
from kafetrain.core.entry import Entry, Registration
from kafetrain.errors import KafetrainError

__all__ = ["LockTable", "SourceLocks"]

LOOK_AT = 2_000


class SourceLocks:
    """The locks of one source partition."""

    __slots__ = ("chains", "committed", "ended", "entries", "floor")

    def __init__(self) -> None:
        self.chains = Chains()
        self.entries = Entries()
        self.ended: dict[int, tuple[ChainKey, int]] = {}  # offset -> chain, log offset of its tombstone
        self.committed = 0
        """The source's committed offset, as far as we know: below it nothing is delivered again."""
        self.floor = 0
        """Of the redirect log: what is below it was written before an operator's rewind."""

    def put(self, offset: int, entry: Entry) -> Chain | None:
        """The id is open now. Returns the chain that changed, None where a later word is known already."""
        if offset in self.entries:
            if entry.log_offset <= self.entries.log_offset(offset):
                return None
            known = self.entries[offset]
            if not entry.readable and known.readable:  # keep what we know of it; only its offset is news
                entry = structs.replace(known, log_offset=entry.log_offset)
            if known.key == entry.key:
                self.entries[offset] = entry
                return self.chains[chain_key(entry.key, offset)]
            self._drop_open(offset)  # its key was unreadable before
        elif (ended := self.ended.get(offset)) is not None:
            if entry.log_offset <= ended[1]:
                return None
            self._forget(offset)
        return self._add_open(offset, entry)

    def end(self, offset: int, key: bytes | None, log_offset: int, *, ours: bool = False) -> Chain | None:
        """The id has ended. `ours`: an acknowledged write of our own, which the log does not show us yet."""
        if offset in self.entries:
            if log_offset <= self.entries.log_offset(offset):
                return None
            chain = self._drop_open(offset)
        else:
            known = self.ended.get(offset)
            if known is not None and log_offset <= known[1]:
                return None
            chain = self._chain(chain_key(key, offset) if known is None else known[0])
        if ours or (offset >= self.committed and log_offset >= self.floor):
            self.ended[offset] = (chain.key, log_offset)
            chain.add_ended(offset)
        self.chains[chain.key] = chain
        return chain

    def knows(self, offset: int, log_offset: int) -> bool:
        """Is what the log says of the id at `log_offset` the last that is known of it? So it is with our own writes."""
        if offset in self.entries:
            return self.entries.log_offset(offset) == log_offset
        ended = self.ended.get(offset)
        return ended is not None and ended[1] == log_offset

    def repair(self, offset: int, key: bytes | None, attempt: int, due_ms: int) -> Chain | None:
        """The retry record of an id whose entry was unreadable has arrived: it knows what the entry should say."""
        if offset not in self.entries or self.entries.is_readable(offset):
            return None
        entry = self.entries[offset]
        self._drop_open(offset)
        return self._add_open(offset, structs.replace(entry, key=key, attempt=attempt, due_ms=due_ms, readable=True))

    def later_id_known(self, chain: Chain, offset: int) -> bool:
        """Is a later id of the chain known in any state, written since the floor?"""
        if any(other > offset for other in chain.ended):
            return True
        for other in reversed(chain.open):
            if other <= offset:
                return False
            if self.entries.log_offset(other) >= self.floor:
                return True
        return False

    def forget_below(self, committed: int, read_to: int) -> None:
        """Ended ids below the committed offset are not delivered again. Keep those of our own tombstones that the
        log has yet to show us: an older entry of theirs may still come."""
        self.committed = committed
        for offset in [o for o, (_, at) in self.ended.items() if o < committed and at < read_to]:
            self._forget(offset)

    def set_floor(self, floor: int) -> None:
        """Nothing ended below `floor` counts: an operator wants those records again."""
        self.floor = floor
        for offset in [o for o, (_, at) in self.ended.items() if at < floor]:
            self._forget(offset)

    def lengthen(self, key: ChainKey, offset: int) -> Chain:
        """The id has an entry and is in no chain yet."""
        chain = self._chain(key)
        chain.add_open(offset)
        self.chains[key] = chain
        return chain

    def _add_open(self, offset: int, entry: Entry) -> Chain:
        self.entries[offset] = entry
        return self.lengthen(chain_key(entry.key, offset), offset)

    def _drop_open(self, offset: int) -> Chain:
        chain = self.chains[chain_key(self.entries.key(offset), offset)]
        del self.entries[offset]
        chain.drop_open(offset)
        self.chains[chain.key] = chain
        return chain

    def _forget(self, offset: int) -> None:
        chain = self.chains[self.ended.pop(offset)[0]]
        chain.drop_ended(offset)
        self.chains[chain.key] = chain

    def _chain(self, key: ChainKey) -> Chain:
        return self.chains.get(key) or Chain(key)


class LockTable:
    """All locks of one group in one redirect partition, by source partition."""

    def __init__(self, next_offset: int = 0) -> None:
        self.next_offset = next_offset
        """The redirect log is applied up to here."""
        self.sources: dict[int, SourceLocks] = {}
        self.registrations: dict[str, Registration] = {}
        self.rebuilt: LockTable | None = None
        """While the log is read again from its beginning: what it has said so far. This table stays as it was."""
        self.refused: KafetrainError | None = None
        """The log holds something that this version cannot read: nobody may work with the table."""

    def source(self, partition: int) -> SourceLocks:
        locks = self.sources.get(partition)
        if locks is None:
            locks = self.sources[partition] = SourceLocks()
        return locks

    def fresh(self) -> LockTable:
        """An empty table that remembers and forgets as this one does: the log is read again from its beginning."""
        table = LockTable()
        for partition, locks in self.sources.items():
            copy = table.source(partition)
            copy.committed, copy.floor = locks.committed, locks.floor
        return table

    def adopt(self, other: LockTable) -> None:
        """Know what `other` knows, which is forgotten. The parts stay the same objects, since others hold them."""
        self.next_offset, self.registrations = other.next_offset, other.registrations
        for partition in self.sources.keys() | other.sources.keys():
            mine, theirs = self.source(partition), other.source(partition)
            mine.chains, mine.entries, mine.ended = theirs.chains, theirs.entries, theirs.ended
            mine.set_floor(mine.floor)  # it may have risen since `fresh`

    def open_ids(self) -> Iterator[tuple[int, int, Entry]]:
        """(source partition, offset, entry) of every lock."""
        for partition, locks in self.sources.items():
            for offset, entry in locks.entries.items():
                yield partition, offset, entry

    def pending_count(self) -> int:
        return sum(sum(map(locks.entries.is_pending, locks.entries)) for locks in self.sources.values())

    def oldest_needed(self) -> Iterator[int]:
        """The redirect offset below which no record matters to this group any more: the last number of these.

        The others come after each `LOOK_AT` locks, for the caller to let others at the table meanwhile. What they
        change is written above all that was applied before.
        """
        needed = self.next_offset
        now = [(locks, tuple(locks.entries)) for locks in self.sources.values()]
        for locks, offsets in now:
            needed = min(needed, min((at for _, at in locks.ended.values()), default=needed))
            for begin in range(0, len(offsets), LOOK_AT):
                for offset in offsets[begin : begin + LOOK_AT]:
                    if offset in locks.entries:
                        needed = min(needed, locks.entries.log_offset(offset))
                yield needed
        yield needed
