"""Which record of the retry topic carries an id: two numbers each, for the very many that nothing else is kept of.

Sorted by source offset, in short pieces: a piece is changed in place, and no change moves more than one.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, MutableMapping

__all__ = ["Places"]

PIECE = 512
"""Ids in one half of a piece that is cut in two."""


class Places(MutableMapping[int, int]):
    """Offsets in the retry topic, by source offset; of one source partition. Iterates in rising order."""

    __slots__ = ("_count", "_firsts", "_pieces")

    def __init__(self) -> None:
        self._pieces: list[tuple[array[int], array[int]]] = []  # none of them empty
        self._firsts: list[int] = []
        self._count = 0

    def __getitem__(self, offset: int) -> int:
        number, at = self._find(offset)
        return self._pieces[number][1][at]

    def __setitem__(self, offset: int, place: int) -> None:
        if not self._pieces:
            self._pieces.append((array("q"), array("q")))
            self._firsts.append(offset)
        number = max(0, bisect_right(self._firsts, offset) - 1)
        offsets, places = self._pieces[number]
        at = bisect_left(offsets, offset)
        if at < len(offsets) and offsets[at] == offset:
            places[at] = place
            return
        offsets.insert(at, offset)
        places.insert(at, place)
        self._count += 1
        self._firsts[number] = offsets[0]
        if len(offsets) > 2 * PIECE:
            self._pieces[number : number + 1] = [(offsets[:PIECE], places[:PIECE]), (offsets[PIECE:], places[PIECE:])]
            self._firsts.insert(number + 1, offsets[PIECE])

    def __delitem__(self, offset: int) -> None:
        number, at = self._find(offset)
        offsets, places = self._pieces[number]
        del offsets[at], places[at]
        self._count -= 1
        if offsets:
            self._firsts[number] = offsets[0]
        else:
            del self._pieces[number], self._firsts[number]

    def __iter__(self) -> Iterator[int]:
        for offsets, _ in self._pieces:
            yield from offsets

    def __len__(self) -> int:
        return self._count

    def _find(self, offset: int) -> tuple[int, int]:
        number = bisect_right(self._firsts, offset) - 1
        if number >= 0:
            offsets = self._pieces[number][0]
            at = bisect_left(offsets, offset)
            if at < len(offsets) and offsets[at] == offset:
                return number, at
        raise KeyError(offset)
