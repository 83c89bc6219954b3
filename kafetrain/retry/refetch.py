"""Fetch records of the retry topic again, by offset: those whose payloads were dropped, when their turn is near.

A consumer of its own, so that the retry consumer's positions only go forward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta

from kafetrain.client.ports import ConsumerPort, OffsetOutOfRangeError
from kafetrain.core.schedule import Held
from kafetrain.errors import FatalError
from kafetrain.record import Record, TopicPartition

__all__ = ["Refetcher"]

SKIP_OVER = 500
"""A gap between two wanted offsets that is read through; a longer one is jumped over."""


class Refetcher:
    """The loop's thread owns it. Connects when something is wanted for the first time."""

    def __init__(self, open_reader: Callable[[], ConsumerPort]) -> None:
        self._open_reader = open_reader
        self._reader: ConsumerPort | None = None
        self._assigned: frozenset[TopicPartition] = frozenset()
        self._has_jumped = False

    def fetch(
        self, wanted: Mapping[TopicPartition, Mapping[int, Held]], timeout: timedelta
    ) -> Iterator[tuple[TopicPartition, Held, Record]]:
        """What arrived of it within `timeout`; ask again for the rest."""
        if self._reader is None:
            self._reader = self._open_reader()
        places = frozenset(wanted)
        if places != self._assigned:
            self._reader.assign({place: min(wanted[place]) for place in places})
            self._assigned = places
        for place, offsets in wanted.items():
            first, position = min(offsets), self._reader.position(place)
            if position is None or not first - SKIP_OVER <= position <= first:
                self._reader.seek(place, first)
        try:
            batches = self._reader.poll(timeout)
        except OffsetOutOfRangeError as error:
            if not self._has_jumped:  # to read through a gap, it stood at what has been purged since
                for place, offsets in wanted.items():
                    self._reader.seek(place, min(offsets))
                self._has_jumped = True
                return
            raise FatalError(
                f"records that still wait were deleted from the retry topic: {error}. Its retention must be unlimited "
                f"(`kafetrain topics verify`), and nobody may delete records above the committed offset."
            ) from None
        self._has_jumped = False
        for place, records in batches.items():
            for record in records:
                held = wanted[place].get(record.offset)
                if held is not None:
                    yield place, held, record

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
