"""The partitions that a librdkafka consumer reads: where each begins, and what the library is told of it.

The library starts an assigned partition without saying where, and goes on with a paused or moved one when it happens to
look at it. Here positions are known before anything is delivered, and it is made to look at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka import TopicPartition as LibraryPartition
from loguru import logger

from kafetrain.client.confluent_errors import AUTH_ERRORS, client_error, error_of
from kafetrain.client.confluent_inbox import Inbox
from kafetrain.client.ports import ClientError, Committed
from kafetrain.record import TopicPartition

__all__ = ["OwnPartitions"]

ASK_AGAIN_S = 0.005
SETTLE_TIMEOUT_S = 1.0
SETTLE_AGAIN_S = 0.05


class OwnPartitions:
    """Of the consumer's thread, but for `ours`."""

    def __init__(
        self,
        consumer: Any,
        name: str,
        inbox: Inbox,
        ask_committed: Callable[[Collection[TopicPartition]], Mapping[TopicPartition, Committed]],
        *,
        begins_at_end: bool,
    ) -> None:
        self._consumer, self._name, self._inbox = consumer, name, inbox
        self._ask_committed, self._begins_at_end = ask_committed, begins_at_end
        self.ours: frozenset[TopicPartition] = frozenset()
        """By the group; may be committed. Assigned, or about to go. Replaced as a whole: any thread may look."""
        self._unsettled: set[TopicPartition] = set()  # assigned, at a position that is not known yet
        self._settle_at = 0.0
        self._library_paused: set[TopicPartition] = set()
        self._begin_at: dict[TopicPartition, int] = {}
        """Of those that the library pauses: where it was told to go meanwhile."""

    def begin(self, places: frozenset[TopicPartition]) -> None:
        """They were assigned: paused, until `settle` has found out where they begin and their owner resumes them."""
        self._inbox.begin(places)
        self.pause(places)
        self._unsettled |= places
        self._settle_at = 0.0
        self.ours |= places

    def forget(self, places: frozenset[TopicPartition]) -> None:
        self._inbox.forget(places)
        self._unsettled -= places
        self._library_paused -= places
        for place in places:
            self._begin_at.pop(place, None)
        self.ours -= places

    # What is asked for

    def pause(self, places: Collection[TopicPartition]) -> None:
        """Of the library, so that it fetches no more."""
        self._consumer.pause([LibraryPartition(*place) for place in places])
        self._library_paused |= set(places)

    def resume(self, places: Collection[TopicPartition]) -> None:
        """As far as the library paused them, and they were not paused again."""
        going_on = {p for p in places if p in self._library_paused and not self._inbox.is_paused(p)}
        self._library_paused -= going_on
        if going_on:
            self._consumer.resume([LibraryPartition(*place) for place in going_on])
        # Of a resume alone, the thread that fetches takes notice up to a second later.
        for place in going_on & self._begin_at.keys():
            self._consumer.seek(LibraryPartition(*place, self._begin_at.pop(place)))

    def seek(self, place: TopicPartition, next_offset: int) -> None:
        """Of a partition of the group."""
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        try:
            while place in self.ours:
                try:
                    self._go_to(place, next_offset)
                    return
                except KafkaException:  # assigned, and not taken up by the library yet
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(ASK_AGAIN_S)
        finally:
            self._inbox.moved([place])

    def reassign(self, gone: Collection[TopicPartition], positions: Mapping[TopicPartition, int]) -> None:
        """Without a group: stop reading `gone`, and begin anew at `positions`."""
        try:
            if gone:
                self._consumer.incremental_unassign([LibraryPartition(*place) for place in gone])
            for topic in {place.topic for place in positions}:
                self._make_known(topic)
            if positions:
                self._consumer.incremental_assign([LibraryPartition(*p, offset) for p, offset in positions.items()])
            self._library_paused -= set(gone)
            if paused := [place for place in positions if self._inbox.is_paused(place)]:
                self.pause(paused)
        finally:
            self._inbox.moved(positions)

    def _make_known(self, topic: str) -> None:
        """Where its leaders are: left alone, the library looks for them when it has waited for half a second."""
        try:
            self._consumer.list_topics(topic, SETTLE_TIMEOUT_S)
        except KafkaException as error:
            logger.debug("{}: {}", self._name, client_error(error, f"looking for the leaders of {topic}"))

    def _go_to(self, place: TopicPartition, next_offset: int) -> None:
        self._consumer.seek(LibraryPartition(*place, next_offset))
        self._unsettled.discard(place)
        if place in self._library_paused:
            self._begin_at[place] = next_offset

    # Positions of what was assigned

    def settle(self) -> None:
        """Find out where assigned partitions begin: the library would tell only with their first record."""
        if not self._unsettled or time.monotonic() < self._settle_at:
            return
        self._settle_at = time.monotonic() + SETTLE_AGAIN_S
        try:
            for place, committed in self._committed(sorted(self._unsettled)).items():
                offset = self._reset_position(place) if committed is None else committed
                self._go_to(place, offset)
                self._inbox.begins_at(place, offset)
        except (KafkaException, ClientError) as error:
            found = error_of(error)
            if found is not None and (found.fatal() or found.code() in AUTH_ERRORS):
                raise
            logger.debug("positions for {} are not known yet: {}", self._name, error)

    def _committed(self, places: list[TopicPartition]) -> dict[TopicPartition, int | None]:
        try:
            answers = self._consumer.committed([LibraryPartition(*place) for place in places], SETTLE_TIMEOUT_S)
        except UnicodeDecodeError:  # of metadata, which the library reads too much of
            known = self._ask_committed(places)
            return {place: known[place].next_offset if place in known else None for place in places}
        for answer in answers:
            if answer.error is not None:
                raise KafkaException(answer.error)
        return {TopicPartition(a.topic, a.partition): a.offset if a.offset >= 0 else None for a in answers}

    def _reset_position(self, place: TopicPartition) -> int:
        first, end = self._consumer.get_watermark_offsets(LibraryPartition(*place), SETTLE_TIMEOUT_S)
        return int(end if self._begins_at_end else first)
