"""Purge: delete what no lock needs any more, so that disk and start-up follow the live locks, not the history.

Only where this group is alone: another group's records cannot be told from garbage by their offsets. The order makes
that safe: take the purge offsets, read the redirect partition to its end, look who is registered, then delete. A group
registers before its first write, so what it wrote below our offsets lies behind a registration that we have read.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial

from loguru import logger

from kafetrain.errors import KafetrainError
from kafetrain.record import TopicPartition
from kafetrain.retry.partition import RetryPartition
from kafetrain.tracker.parts import Parts
from kafetrain.tracker.state import TrackerState

__all__ = ["Purge"]

WAIT_S = 10.0
LET_OTHERS_S = 0.001
"""For the mutex, between two looks at some of the locks: there may be a million, and retries come due meanwhile."""
WORTH_A_REGISTRATION = 100
"""How many records behind our registration are worth writing it again."""


class Purge:
    """One for a manager; `run` is called in the background, one at a time."""

    def __init__(self, parts: Parts, state: TrackerState) -> None:
        self._parts, self._state = parts, state
        self._done: dict[TopicPartition, int] = {}
        self._warned: set[str] = set()

    def run_all(self, parts: Iterable[RetryPartition]) -> None:
        """As `run`, one after the other."""
        for part in parts:
            self.run(part)

    def run(self, part: RetryPartition) -> None:
        """Purge the retry partition and its redirect partition. Never raises what a broker or a rebalance causes."""
        try:
            self._run(part)
        except (KafetrainError, FutureTimeoutError) as error:
            self._warn(
                part.place.topic, "records of {} are not purged, so its topics only grow: {}", part.place.topic, error
            )

    def _run(self, part: RetryPartition) -> None:
        group = self._parts.settings.group_id
        before = {part.place: part.committed}
        with self._state.mutex:
            ours = part.table.registrations.get(group)
        needed = self._oldest_needed(part)
        if ours is None:
            return
        if needed - ours.log_offset > WORTH_A_REGISTRATION:
            # Ours would go with the prefix, and other groups would take our records for garbage.
            path = self._parts.path_of(part.claim)
            path.run(partial(path.writes.registration, part.claim.topic, part.redirect), part.claim).result(WAIT_S)
        else:
            needed = min(needed, ours.log_offset)
        before[part.redirect] = needed
        before = {place: offset for place, offset in before.items() if offset > self._done.get(place, 0)}
        if not before:
            return
        if not self._read_to_end(part):
            return
        with self._state.mutex:
            others = sorted(part.table.registrations.keys() - {group})
        if others:
            self._warn(
                part.redirect.topic,
                "{} is shared with group {}, so nothing in it is purged; with {{group}} in topic_format each has its "
                "own",
                part.redirect.topic,
                ", ".join(others),
            )
            return
        if part.leaving:
            return
        self._parts.admin.delete_records(before)
        self._done |= before

    def _oldest_needed(self, part: RetryPartition) -> int:
        needed = 0
        with self._state.changed:
            for offset in part.table.oldest_needed():
                needed = offset
                self._state.changed.wait(LET_OTHERS_S)
        return needed

    def _read_to_end(self, part: RetryPartition) -> bool:
        end = self._parts.end_of(part.redirect)
        clock = self._parts.clock
        deadline = clock.monotonic() + WAIT_S
        with self._state.changed:
            while part.table.next_offset < end:
                if part.leaving or clock.monotonic() > deadline:
                    return False
                self._state.changed.wait(timeout=0.5)
        return True

    def _warn(self, topic: str, message: str, *args: object) -> None:
        if topic not in self._warned:
            self._warned.add(topic)
            logger.bind(topic=topic).warning(message, *args)
