"""Membership of a librdkafka consumer in its group: what it is given, what it gives back, and what it may commit.

The library calls back in the middle of `poll`, and a partition is gone when that callback returns. So the callback
stays until the owner's work in flight is over, and meanwhile carries out what the owner asks for.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka import TopicPartition as LibraryPartition
from loguru import logger

from kafetrain.client.confluent_errors import client_error
from kafetrain.client.confluent_inbox import Inbox
from kafetrain.client.confluent_partitions import OwnPartitions
from kafetrain.client.confluent_requests import Requests
from kafetrain.client.ports import Committed, NotOwnerError, RebalanceEvents
from kafetrain.record import TopicPartition

__all__ = ["Membership"]

ASK_AGAIN_S = 0.005


class Membership:
    """Of the consumer's thread, where `events` is told too; others say when the owner polls, and that it closes."""

    def __init__(
        self,
        consumer: Any,
        name: str,
        inbox: Inbox,
        partitions: OwnPartitions,
        requests: Requests,
        *,
        is_cooperative: bool,
        max_poll_interval_s: float,
    ) -> None:
        self._consumer, self._name, self._inbox = consumer, name, inbox
        self._partitions, self._requests = partitions, requests
        self._is_cooperative, self._max_poll_interval_s = is_cooperative, max_poll_interval_s
        self._events: RebalanceEvents | None = None
        self.close_at: float | None = None
        """It is being closed: work in flight is waited for until then (monotonic)."""
        self.polls = 0  # of the owner, begun
        self._assigns_from_poll = 0
        self._joined_as: str | None = None
        self.metadata: bytes | None = None
        """The library's group metadata, as of its last call in a rebalance. Whoever asks for it on another thread waits
        until nobody polls."""

    def subscribe(self, topics: Collection[str], events: RebalanceEvents) -> None:
        self._events = events
        self._consumer.subscribe(sorted(topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)

    def commit(self, next_offsets: Mapping[TopicPartition, Committed]) -> None:
        # The broker checks that we are a member, not that the partition is ours: a late commit would move the new
        # owner's offset. And a member that was given up commits as nobody, which is taken where the group is empty.
        strange = next_offsets.keys() - self._partitions.ours
        if strange or self._member() != self._joined_as:
            names = ", ".join(f"{place.topic}[{place.partition}]" for place in sorted(strange or next_offsets))
            raise NotOwnerError(f"not committed: {names} went to another member of {self._name}")
        offsets = [
            LibraryPartition(place.topic, place.partition, committed.next_offset, committed.metadata)
            for place, committed in next_offsets.items()
        ]
        for answer in self._consumer.commit(offsets=offsets, asynchronous=False):
            if answer.error is not None:
                raise KafkaException(answer.error)

    def end(self) -> None:
        """Give everything back."""
        if self._partitions.ours and self._events is not None:
            self._let_go(self._partitions.ours)
        self._events = self.metadata = None

    # The library calls these inside of poll

    def _assigned(self, _: Any, partitions: list[Any]) -> None:
        # Paused before anything is fetched; settle() moves them to where they begin.
        anew = [LibraryPartition(partition.topic, partition.partition, 0) for partition in partitions]
        if self._is_cooperative:
            self._consumer.incremental_assign(anew)
        else:
            self._consumer.assign(anew)
        self._joined_as, self.metadata = self._member(), self._consumer.consumer_group_metadata()
        places = _places(partitions)
        if not places:
            return
        while self.polls < self._assigns_from_poll and self.close_at is None:
            self._requests.carry_out(ASK_AGAIN_S)
        self._partitions.begin(places)
        self._tell("assigned", places)

    def _revoked(self, _: Any, partitions: list[Any]) -> None:
        self.metadata = self._consumer.consumer_group_metadata()  # a cooperative rebalance has begun a generation
        if places := _places(partitions) & self._partitions.ours:
            self._let_go(places)

    def _lost(self, _: Any, partitions: list[Any]) -> None:
        self.metadata = None
        if places := _places(partitions) & self._partitions.ours:
            self._are_lost(places)

    # What becomes of partitions that go

    def _let_go(self, places: frozenset[TopicPartition]) -> None:
        """Wait until the owner has nothing in flight for these, commit what it says, and forget them."""
        self._inbox.begin(places)  # it is delivered nothing more
        try:
            next_offsets = dict(self._ask(places) or {})
            if self.close_at is not None and (rest := self._partitions.ours - places):
                # While a commit is still taken from us.
                self._inbox.begin(rest)
                places |= rest
                next_offsets |= self._ask(rest) or {}
            if next_offsets:
                self.commit(next_offsets)
        except Exception as error:
            text = client_error(error, "committing")
            logger.warning("what {} completed last is not committed and will run again: {}", self._name, text)
        finally:
            self._partitions.forget(places)

    def _ask(self, places: frozenset[TopicPartition]) -> Mapping[TopicPartition, Committed] | None:
        assert self._events is not None
        member, gives_up_at = self._member(), time.monotonic() + self._max_poll_interval_s
        answer = self._events.revoking(places)
        while (next_offsets := answer()) is None:
            if self._member() != member or time.monotonic() > gives_up_at:
                self._are_lost(places)
                return None
            if self.close_at is not None and time.monotonic() > self.close_at:
                logger.warning("{} closes with work in flight, which will run again", self._name)
                return None
            self._requests.carry_out(ASK_AGAIN_S)
        return next_offsets

    def _member(self) -> str | None:
        """Who we are in the group; another one, or nobody, when it has given us up."""
        return self._consumer.memberid() or None

    def _are_lost(self, places: frozenset[TopicPartition]) -> None:
        self.metadata = None
        self._partitions.forget(places)
        # If they came back before the owner has heard of this, it would commit for them what is no longer so. The poll
        # after next is one that it begins with the news.
        self._assigns_from_poll = self.polls + 2
        self._tell("lost", places)

    def _tell(self, event: str, places: frozenset[TopicPartition]) -> None:
        try:
            getattr(self._events, event)(places)
        except Exception:
            logger.exception("the owner of a consumer failed in a rebalance")


def _places(partitions: list[Any]) -> frozenset[TopicPartition]:
    return frozenset(TopicPartition(partition.topic, partition.partition) for partition in partitions)
