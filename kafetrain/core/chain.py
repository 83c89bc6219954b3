"""The ids of one key of a source partition, and all chains of a partition.

There may be a million keys in retry, most with one record. Such a chain is kept as a number, and is a `Chain` again for
as long as somebody looks at it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, MutableMapping
from typing import TypeAlias

__all__ = ["Chain", "ChainKey", "Chains", "chain_key"]

ChainKey: TypeAlias = "bytes | int"

SHORT = 64
"""A longer chain is a deque: taking the head of a list moves all that is behind it."""

_NONE: frozenset[int] = frozenset()


def chain_key(key: bytes | None, offset: int) -> ChainKey:
    """Which chain a record belongs to within its source partition: one without a key is a chain of its own."""
    return offset if key is None else key


class Chain:
    """The ids of one (source partition, key): open ones in offset order, the first is the head; and ended ones.

    For looking at. What changes one has to put it back into its `Chains`.
    """

    __slots__ = ("ended", "key", "open")

    def __init__(self, key: ChainKey) -> None:
        self.key = key
        self.open: list[int] | deque[int] = []
        self.ended: set[int] | frozenset[int] = _NONE

    def add_open(self, offset: int) -> None:
        if not self.open or offset > self.open[-1]:
            if len(self.open) == SHORT:
                self.open = deque(self.open)
            self.open.append(offset)
        else:  # redelivered around a crash: rare, so a linear insert will do
            at = next(i for i, other in enumerate(self.open) if other > offset)
            self.open.insert(at, offset)

    def drop_open(self, offset: int) -> None:
        if self.open[0] != offset:
            self.open.remove(offset)
        elif isinstance(self.open, deque):
            self.open.popleft()
        else:
            del self.open[0]

    def add_ended(self, offset: int) -> None:
        if isinstance(self.ended, set):
            self.ended.add(offset)
        else:
            self.ended = {offset}

    def drop_ended(self, offset: int) -> None:
        if isinstance(self.ended, set):
            self.ended.discard(offset)
            if not self.ended:
                self.ended = _NONE


class Chains(MutableMapping[ChainKey, Chain]):
    """The chains of one source partition, by key. One without ids is not kept."""

    __slots__ = ("kept",)

    def __init__(self) -> None:
        self.kept: dict[ChainKey, Chain | int] = {}
        """A chain of one open id is kept as its offset, one of an ended id as that one's complement, below zero.
        Whether there is any, the healthy path asks here."""

    def __getitem__(self, key: ChainKey) -> Chain:
        if (chain := self.get(key)) is None:
            raise KeyError(key)
        return chain

    def get(self, key: ChainKey, default: Chain | None = None) -> Chain | None:  # type: ignore[override]  # of this type
        kept = self.kept.get(key)
        if kept is None:
            return default
        if isinstance(kept, Chain):
            return kept
        chain = Chain(key)
        if kept >= 0:
            chain.open.append(kept)
        else:
            chain.ended = {~kept}
        return chain

    def __setitem__(self, key: ChainKey, chain: Chain) -> None:
        if len(chain.open) + len(chain.ended) > 1:
            self.kept[key] = chain
        elif chain.open:
            self.kept[key] = chain.open[0]
        elif chain.ended:
            self.kept[key] = ~next(iter(chain.ended))
        else:
            self.kept.pop(key, None)

    def __delitem__(self, key: ChainKey) -> None:
        del self.kept[key]

    def __iter__(self) -> Iterator[ChainKey]:
        return iter(self.kept)

    def __len__(self) -> int:
        return len(self.kept)

    def __contains__(self, key: object) -> bool:
        return key in self.kept
