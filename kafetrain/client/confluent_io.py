"""The thread that owns a librdkafka consumer: it consumes, carries out what others ask for, and sits in rebalances.

The library calls back in the middle of `poll`, and a partition is gone when that callback returns. So the callback
stays until the owner's work in flight is over, on this thread and not on the owner's; and since the library lets one
thread at a time into a consumer, every call of it is made here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from confluent_kafka import KafkaException
from confluent_kafka import TopicPartition as LibraryPartition
from loguru import logger

from kafetrain.client.confluent_errors import AUTH_ERRORS, client_error, error_of
from kafetrain.client.confluent_inbox import Inbox, Item, items_of
from kafetrain.client.confluent_requests import Requests, result_of
from kafetrain.client.ports import ClientError, Committed, NotOwnerError, RebalanceEvents
from kafetrain.record import TopicPartition

__all__ = ["ConsumerThread"]

T = TypeVar("T")

BATCH = 500
"""Messages of one call of the library. The garbage collector looks for young objects at each 700th: so few are gone
before it comes."""

POLL_S = 0.01
"""How long the library may be waited for: what was asked of this thread waits as long."""

ASK_AGAIN_S = 0.005
SETTLE_TIMEOUT_S = 1.0
RETRY_AFTER_S = 0.05

OWNER_IS_GONE_AFTER_S = 1.0
"""Without a poll of the owner this thread consumes no more, so that `max.poll.interval.ms` counts the owner's polls."""


class ConsumerThread:
    """`events` is told on this thread. `call` and `post` from any thread; `close` too, once."""

    def __init__(
        self,
        consumer: Any,
        name: str,
        inbox: Inbox,
        ask_committed: Callable[[Collection[TopicPartition]], Mapping[TopicPartition, Committed]],
        *,
        begins_at_end: bool = False,
        is_cooperative: bool = False,
        max_poll_interval_s: float = float("inf"),
    ) -> None:
        self._consumer, self._name, self._inbox = consumer, name, inbox
        self._ask_committed = ask_committed
        self._begins_at_end, self._is_cooperative = begins_at_end, is_cooperative
        self._max_poll_interval_s = max_poll_interval_s
        self._requests = Requests(name)
        self._events: RebalanceEvents | None = None
        self.closing = threading.Event()
        self.over = threading.Event()
        """Nothing more comes: it is being closed, or has failed."""
        self._close_deadline = float("inf")
        self._polled_at = time.monotonic()
        self._polls = 0  # of the owner, begun
        self._assigns_from_poll = 0
        self.ours: frozenset[TopicPartition] = frozenset()
        """May be committed: assigned, or about to go. Replaced as a whole, so that any thread may look."""
        self._joined_as: str | None = None
        self.membership: bytes | None = None
        """The library's group metadata, as of its last call in a rebalance. Whoever asks for it on another thread waits
        until nobody polls."""
        self._unsettled: set[TopicPartition] = set()  # assigned, at a position that is not known yet
        self._library_paused: set[TopicPartition] = set()
        self._begin_at: dict[TopicPartition, int] = {}
        """Of those that the library pauses: where it was told to go meanwhile."""
        self._settle_at = 0.0
        self._gets_full_batches = False
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="kafetrain-librdkafka", daemon=True)

    def start(self) -> None:
        if not self._thread.is_alive() and not self.closing.is_set():
            self._thread.start()

    def subscribe(self, topics: Collection[str], events: RebalanceEvents) -> None:
        self._events = events
        self._consumer.subscribe(sorted(topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)
        self.start()

    def post(self, request: Callable[[], object]) -> None:
        """Carried out soon, in order. Its errors are logged."""
        self._requests.post(request)
        self._wake()

    def call(self, request: Callable[[], T], timeout_s: float, doing: str) -> T:
        """Its result. `ClientError`, retriable, when there was none in time; it may come about all the same."""
        if self.over.is_set():
            raise ClientError(f"{doing}: the consumer is closed, or has failed", retriable=True)
        future = self._requests.ask(request)
        self._wake()
        return result_of(future, timeout_s, doing)

    def polled(self) -> None:
        """The owner begins to poll."""
        self._polled_at = time.monotonic()
        self._polls += 1

    def close(self, work_s: float, leave_s: float) -> None:
        """Bounded: `work_s` for work in flight, `leave_s` for the library."""
        self._close_deadline = time.monotonic() + work_s
        self.closing.set()
        self._end()
        if not self._thread.is_alive():
            self._leave()
            return
        self._thread.join(work_s + leave_s)
        if self._thread.is_alive():
            logger.warning("closing the consumer of {} takes long, and goes on in the background", self._name)

    def _end(self) -> None:
        self.over.set()
        self._wake()

    def _wake(self) -> None:
        with self._inbox.changed:
            self._inbox.changed.notify_all()

    # On the thread

    def _run(self) -> None:
        try:
            while not self.closing.is_set():
                self._requests.carry_out()
                self._settle()
                if self._may_consume():
                    self._consume()
        except BaseException as error:
            self.failure = error
        finally:
            self._end()
            self._leave()

    def _may_consume(self) -> bool:
        changed = self._inbox.changed
        with changed:
            if self._is_wanted():
                return True
            changed.wait(RETRY_AFTER_S)
            return self._is_wanted()

    def _is_wanted(self) -> bool:
        return self._inbox.has_room and time.monotonic() - self._polled_at < OWNER_IS_GONE_AFTER_S

    def _consume(self) -> None:
        messages: list[Any] = []
        if not self._gets_full_batches:  # consume() would wait for a full batch
            first = self._consumer.poll(POLL_S)
            if first is None:
                return
            messages.append(first)
        items: list[Item] = []
        for _ in range(max(1, self._inbox.room // BATCH)):
            messages += self._consumer.consume(BATCH - len(messages), 0)
            self._gets_full_batches = len(messages) == BATCH
            items += items_of(messages)
            messages.clear()
            if not self._gets_full_batches:
                break
        if items and (overfull := self._inbox.put(items)):
            self.pause(overfull)

    def _leave(self) -> None:
        if self.ours and self._events is not None:
            self._let_go(self.ours)
        self._events = self.membership = None
        try:
            self._consumer.close()
        except Exception as error:
            logger.warning("closing the consumer of {}: {}", self._name, error)

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
                    self._consumer.seek(LibraryPartition(*place, next_offset))
                    self._unsettled.discard(place)
                    if place in self._library_paused:
                        self._begin_at[place] = next_offset
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

    def commit(self, next_offsets: Mapping[TopicPartition, Committed]) -> None:
        # The broker checks that we are a member, not that the partition is ours: a late commit would move the new
        # owner's offset. And a member that was given up commits as nobody, which is taken where the group is empty.
        strange = next_offsets.keys() - self.ours
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

    # Positions of what was assigned

    def _settle(self) -> None:
        """Find out where assigned partitions begin: the library would tell only with their first record."""
        if not self._unsettled or time.monotonic() < self._settle_at:
            return
        self._settle_at = time.monotonic() + RETRY_AFTER_S
        try:
            for place, committed in self._committed(sorted(self._unsettled)).items():
                offset = self._reset_position(place) if committed is None else committed
                self._consumer.seek(LibraryPartition(*place, offset))
                self._unsettled.discard(place)
                if place in self._library_paused:
                    self._begin_at[place] = offset
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

    # Rebalances: the library calls these inside of poll

    def _assigned(self, _: Any, partitions: list[Any]) -> None:
        # Paused before anything is fetched; _settle moves them to where they begin.
        anew = [LibraryPartition(partition.topic, partition.partition, 0) for partition in partitions]
        if self._is_cooperative:
            self._consumer.incremental_assign(anew)
        else:
            self._consumer.assign(anew)
        self._joined_as, self.membership = self._member(), self._consumer.consumer_group_metadata()
        places = _ours(partitions)
        if not places:
            return
        while self._polls < self._assigns_from_poll and not self.closing.is_set():
            self._requests.carry_out(ASK_AGAIN_S)
        self._inbox.begin(places)
        self.pause(places)
        self._unsettled |= places
        self._settle_at = 0.0
        self.ours |= places
        self._tell("assigned", places)

    def _revoked(self, _: Any, partitions: list[Any]) -> None:
        self.membership = self._consumer.consumer_group_metadata()  # a cooperative rebalance has begun a generation
        if places := _ours(partitions) & self.ours:
            self._let_go(places)

    def _lost(self, _: Any, partitions: list[Any]) -> None:
        self.membership = None
        if places := _ours(partitions) & self.ours:
            self._are_lost(places)

    def _let_go(self, places: frozenset[TopicPartition]) -> None:
        """Wait until the owner has nothing in flight for these, commit what it says, and forget them."""
        self._inbox.begin(places)  # it is delivered nothing more
        try:
            next_offsets = dict(self._ask(places) or {})
            if self.closing.is_set() and (rest := self.ours - places):  # while a commit is still taken from us
                self._inbox.begin(rest)
                places |= rest
                next_offsets |= self._ask(rest) or {}
            if next_offsets:
                self.commit(next_offsets)
        except Exception as error:
            text = client_error(error, "committing")
            logger.warning("what {} completed last is not committed and will run again: {}", self._name, text)
        finally:
            self._forget(places)

    def _ask(self, places: frozenset[TopicPartition]) -> Mapping[TopicPartition, Committed] | None:
        assert self._events is not None
        member, gives_up_at = self._member(), time.monotonic() + self._max_poll_interval_s
        answer = self._events.revoking(places)
        while (next_offsets := answer()) is None:
            if self._member() != member or time.monotonic() > gives_up_at:
                self._are_lost(places)
                return None
            if time.monotonic() > self._close_deadline:
                logger.warning("{} closes with work in flight, which will run again", self._name)
                return None
            self._requests.carry_out(ASK_AGAIN_S)
        return next_offsets

    def _member(self) -> str | None:
        """Who we are in the group; another one, or nobody, when it has given us up."""
        return self._consumer.memberid() or None

    def _forget(self, places: frozenset[TopicPartition]) -> None:
        self._inbox.forget(places)
        self._unsettled -= places
        self._library_paused -= places
        for place in places:
            self._begin_at.pop(place, None)
        self.ours -= places

    def _are_lost(self, places: frozenset[TopicPartition]) -> None:
        self.membership = None
        self._forget(places)
        # If they came back before the owner has heard of this, it would commit for them what is no longer so. The poll
        # after next is one that it begins with the news.
        self._assigns_from_poll = self._polls + 2
        self._tell("lost", places)

    def _tell(self, event: str, places: frozenset[TopicPartition]) -> None:
        try:
            getattr(self._events, event)(places)
        except Exception:
            logger.exception("the owner of a consumer failed in a rebalance")


def _ours(partitions: list[Any]) -> frozenset[TopicPartition]:
    return frozenset(TopicPartition(partition.topic, partition.partition) for partition in partitions)
