"""The thread that owns a librdkafka consumer: it consumes, carries out what others ask for, and sits in rebalances.

The library lets one thread at a time into a consumer, and a rebalance keeps that thread for as long as the work in
flight takes. So every call of it is made here, and none on the owner's thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from loguru import logger

from kafetrain.client.confluent_errors import text_of
from kafetrain.client.confluent_inbox import Inbox, Item, items_of
from kafetrain.client.confluent_membership import Membership
from kafetrain.client.confluent_partitions import OwnPartitions
from kafetrain.client.confluent_requests import Requests, result_of
from kafetrain.client.ports import ClientError, RebalanceEvents

__all__ = ["ConsumerThread"]

T = TypeVar("T")

BATCH = 500
"""Messages of one call of the library. The garbage collector looks for young objects at each 700th: so few are gone
before it comes."""

POLL_S = 0.01
"""How long the library may be waited for: what was asked of this thread waits as long."""

LOOK_AGAIN_S = 0.05

OWNER_IS_GONE_AFTER_S = 1.0
"""Without a poll of the owner this thread consumes no more, so that `max.poll.interval.ms` counts the owner's polls."""


class ConsumerThread:
    """`events` is told on this thread. `call` and `post` from any thread; `close` too, once."""

    def __init__(
        self,
        consumer: Any,
        name: str,
        inbox: Inbox,
        partitions: OwnPartitions,
        membership: Membership,
        requests: Requests,
    ) -> None:
        self._consumer, self._name, self._inbox = consumer, name, inbox
        self._partitions, self._membership, self._requests = partitions, membership, requests
        self.closing = threading.Event()
        self.over = threading.Event()
        """Nothing more comes: it is being closed, or has failed."""
        self._polled_at = time.monotonic()
        self._gets_full_batches = False
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="kafetrain-librdkafka", daemon=True)

    def start(self) -> None:
        if self._thread.ident is None and not self.closing.is_set():
            self._thread.start()

    def subscribe(self, topics: Collection[str], events: RebalanceEvents) -> None:
        self._membership.subscribe(topics, events)
        self.start()

    def post(self, request: Callable[[], object]) -> None:
        """Carried out soon, in order. Its errors are logged."""
        self._requests.post(request)
        self._wake()

    def call(self, request: Callable[[], T], timeout_s: float, doing: str) -> T:
        """Its result. `ClientError`, retriable where there was none in time; it may come about all the same."""
        if self.over.is_set():
            raise self.refusal(doing) from self.failure
        future = self._requests.ask(request)
        self._wake()
        return result_of(future, timeout_s, doing)

    def refusal(self, doing: str) -> ClientError:
        """It is over, and stays so: nothing is to be tried again."""
        why = "is closed" if self.failure is None else f"has failed: {text_of(self.failure)}"
        return ClientError(f"{doing}: the consumer {why}")

    def polled(self) -> None:
        """The owner begins to poll."""
        self._polled_at = time.monotonic()
        self._membership.polls += 1

    def close(self, work_s: float, leave_s: float) -> None:
        """Bounded: `work_s` for work in flight, `leave_s` for the library."""
        self._membership.close_at = time.monotonic() + work_s
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
                self._partitions.settle()
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
            changed.wait(LOOK_AGAIN_S)
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
            self._partitions.pause(overfull)

    def _leave(self) -> None:
        self._membership.end()
        try:
            self._consumer.close()
        except Exception as error:
            logger.warning("closing the consumer of {}: {}", self._name, error)
