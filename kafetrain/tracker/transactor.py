"""Transactions: locks, retry records, dead letters and the offsets that they complete, all of them or none.

    run ─> queue ─> begin ─> the work of all that waits ─> offsets ─> commit ─> lock table ─> futures
                      ^                                                  │
                      └── a new producer, the same work again <── aborted, refused, unknown

One transactor belongs to one consumer, whose membership every commit is checked by. An instance that has lost its
partitions without knowing it (a zombie) is refused, and nothing of what it wrote counts. So every transaction carries
offsets, even where they have not moved. One transaction is under way at a time; what is asked for meanwhile shares the
next one.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from loguru import logger

from kafetrain.client.ports import (
    Client,
    ClientError,
    Committed,
    ConsumerPort,
    NotOwnerError,
    OutcomeUnknownError,
    OutgoingRecord,
    TransactionalClient,
    TransactionalProducerPort,
)
from kafetrain.clock import Clock
from kafetrain.errors import ConfigurationError, PartitionLostError, TransientError, WriteFailedError, first_line
from kafetrain.futures import LightFuture
from kafetrain.record import TopicPartition
from kafetrain.threads import LoopThread
from kafetrain.tracker.sequence import Sequencer
from kafetrain.tracker.state import Claim, Side
from kafetrain.tracker.write_path import Work
from kafetrain.tracker.writes import Writes

__all__ = ["Carrying", "Transactor"]

T = TypeVar("T")
Carrying = Callable[
    [Mapping[TopicPartition, Collection[int]]], AbstractContextManager[Mapping[TopicPartition, Committed]]
]
"""Given what will be complete: the offsets to carry. Inside of it nobody else commits those partitions."""

AT_ONCE = 500
"""Pieces of work in one transaction."""

AGAIN_AFTER_S = 0.05
AGAIN_AT_MOST_S = 1.0
CLOSE_TIMEOUT_S = 5.0
POLL = timedelta(milliseconds=100)


@dataclass(slots=True, eq=False)
class _Item:
    """A piece of work, until its future has ended."""

    work: Work[Any]
    claim: Claim
    completes: Collection[int]
    future: LightFuture[Any] = field(default_factory=LightFuture)

    @property
    def place(self) -> TopicPartition:
        names = self.claim.topic.names
        return TopicPartition(names.source if self.claim.side is Side.SOURCE else names.retry, self.claim.partition)


class _Spoiled(Exception):
    """Work of a transaction has failed, and with it the transaction."""

    def __init__(self, failed: Mapping[_Item, BaseException]) -> None:
        self.failed = failed


class _Transaction:
    """One attempt: what was done in it, and what is to be done should it be committed."""

    def __init__(self) -> None:
        self.sequencer = Sequencer(POLL)
        self.when_durable: list[Callable[[], object]] = []
        self.begun = False
        self.witness: tuple[TopicPartition, Future[int]] | None = None
        """One of its writes, by which one can tell later on whether it was committed."""
        self.open = 0
        self.results: dict[_Item, Any] = {}
        self.failed: dict[_Item, BaseException] = {}

    def start(self, item: _Item) -> None:
        self.open += 1
        try:
            self.sequencer.run(item.work()).add_done_callback(lambda done: self._ended(item, done))
        except Exception as error:  # making the sequence failed: a backoff policy, say
            self.open -= 1
            self.failed[item] = error

    def _ended(self, item: _Item, done: Future[Any]) -> None:
        self.open -= 1
        error = done.exception()
        if error is None:
            self.results[item] = done.result()
        else:
            self.failed[item] = error


class Transactor:
    """A `WritePath`, and the loop behind it. `start` its thread, and `stop` it after the last claim was released.

    `carrying`: see `Carrying`. `on_error` is told what ended the thread. Work and `when_durable` calls run on it.
    """

    def __init__(
        self,
        client: Client,
        consumer: ConsumerPort,
        carrying: Carrying,
        group: str,
        clock: Clock,
        on_error: Callable[[BaseException], None],
        max_wait: timedelta = timedelta(milliseconds=100),
    ) -> None:
        if not isinstance(client, TransactionalClient):
            raise ConfigurationError(
                f'delivery="transactional" needs a client with transactions, and {type(client).__name__} has none'
            )
        self._client: Any = client
        self._consumer, self._carrying, self._clock = consumer, carrying, clock
        self._id = f"kafetrain-{group}-{uuid.uuid4().hex}"
        self._patience_s = client.delivery_timeout_s
        self._wait_s = max_wait.total_seconds()
        self._asked: SimpleQueue[_Item] = SimpleQueue()
        self._mutex = threading.Lock()  # guards `_closed` against `run`; nothing is taken inside
        self._closed = False
        self._stopping = threading.Event()
        self._producer: TransactionalProducerPort | None = None
        self._now = _Transaction()
        self._writes: Writes | None = None
        self._thread = LoopThread(self, "kafetrain-transactions", on_error)

    @property
    def writes(self) -> Writes:
        if self._writes is None:
            raise RuntimeError("a transactor without its writes")
        return self._writes

    @writes.setter
    def writes(self, writes: Writes) -> None:
        self._writes = writes

    def run(self, work: Work[T], claim: Claim, completes: Collection[int] = ()) -> Future[T]:
        item = _Item(work, claim, completes)
        with self._mutex:
            if not self._closed:
                self._asked.put(item)
                return item.future
        item.future.set_exception(_closed())
        return item.future

    # For `Writes`

    def send(self, record: OutgoingRecord) -> Future[int]:
        """Within the present transaction, which begins with this where it has not yet."""
        now = self._now
        try:
            if not now.begun:
                self._opened().begin()
                now.begun = True
            sent = self._opened().send(record)
        except ClientError as error:
            sent = LightFuture()
            sent.set_exception(error)
        now.witness = TopicPartition(record.topic, record.partition), sent
        return sent

    def when_durable(self, call: Callable[[], object]) -> None:
        """Called once the present transaction is committed."""
        self._now.when_durable.append(call)

    # The thread

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """What is still open is abandoned, as in a crash, and who waits for it is told so."""
        self._stopping.set()
        self._thread.request_stop()
        if not self._thread.join(CLOSE_TIMEOUT_S + self._wait_s):
            logger.warning("a transaction is left to its timeout")

    def step(self) -> None:
        """Carry out what waits; wait a little where nothing does."""
        items: list[_Item] = []
        try:
            items.append(self._asked.get(timeout=self._wait_s))
            while len(items) < AT_ONCE:
                items.append(self._asked.get_nowait())
        except Empty:
            pass
        if items:
            self._carry_out(items)

    def close(self) -> None:
        with self._mutex:
            self._closed = True
        try:
            while True:
                self._asked.get_nowait().future.set_exception(_closed())
        except Empty:
            pass
        self._discard()

    def _carry_out(self, items: list[_Item]) -> None:
        """Until every one of them has ended."""
        deadline, wait_s, at_once = self._clock.monotonic() + self._patience_s, AGAIN_AFTER_S, len(items)
        last: BaseException | None = None
        while items := _ours(items):
            now, error = items[:at_once], None
            try:
                if not any(item.claim.lost for item in items):  # else: until their loop has noticed, too
                    self._transact(now)
                    items = items[len(now) :]
                    continue
            except _Spoiled as spoiled:
                error, at_once = _judge(spoiled, now, at_once)
            except ClientError as refusal:
                error = refusal
                if not refusal.retriable and not isinstance(refusal, NotOwnerError):
                    _fail(items, refusal)
            except BaseException as bug:  # whoever waits must not wait for ever
                for item in _open(items):
                    item.future.set_exception(bug)
                raise
            if error is not None:
                usual = _is_refused(error) or isinstance(error, PartitionLostError)  # in any rebalance
                logger.log("DEBUG" if usual else "WARNING", "a transaction was not committed: {}", first_line(error))
                self._discard()
            if self._stopping.is_set():
                for item in _open(items):
                    item.future.set_exception(_closed())
                continue
            # The time alone ends nothing: a machine that was suspended wakes up past every deadline. And whom the
            # group has given up learns of it, or is a member again.
            before, last = last, None if error is None or _is_refused(error) else error
            if before is not None and last is not None and self._clock.monotonic() > deadline:
                _fail(items, last)
            else:
                self._stopping.wait(wait_s)
                wait_s = min(2 * wait_s, AGAIN_AT_MOST_S)

    def _transact(self, items: list[_Item]) -> None:
        now, deadline = _Transaction(), self._clock.monotonic() + self._patience_s
        self._now = now
        for item in items:
            now.start(item)
        while now.open and not now.failed:
            if self._clock.monotonic() > deadline:
                raise ClientError("not acknowledged in time", retriable=True)
            now.sequencer.step()
        if now.failed:
            raise _Spoiled(now.failed)
        if now.begun:
            completed: dict[TopicPartition, list[int]] = {}
            for item in items:
                completed.setdefault(item.place, []).extend(item.completes)
            with self._carrying(completed) as offsets:
                # Looked at after the membership was read, in `begin`: were the partitions lost, and the group joined
                # again in between, that membership would be a valid one, and the transaction not refused.
                if any(item.claim.lost or item.claim.released for item in items):
                    raise NotOwnerError("a partition has gone to another instance")
                try:
                    self._opened().commit(offsets)
                except OutcomeUnknownError as error:
                    self._settle(now, error)
        for call in now.when_durable:
            call()
        for item in items:
            item.future.set_result(now.results[item])

    # After a failure

    def _settle(self, unknown: _Transaction, error: ClientError) -> None:
        """Find out whether it was committed. Returns where it was; a retriable error: it was not."""
        deadline = self._clock.monotonic() + self._patience_s
        while True:
            self._discard()
            try:
                self._opened()  # ends what is open of our id, one way or the other
                committed = unknown.witness is not None and self._is_committed(*unknown.witness, deadline)
            except ClientError as refusal:
                if not refusal.retriable or self._clock.monotonic() > deadline or self._stopping.wait(AGAIN_AFTER_S):
                    raise ClientError(f"{error}; and whether it was committed cannot be found out: {refusal}") from None
                continue
            if committed:
                return
            raise ClientError(f"{error}; it was aborted", retriable=True)

    def _is_committed(self, place: TopicPartition, sent: Future[int], deadline: float) -> bool:
        """Readers see a record of it. Past it they come only when its transaction is over."""
        at, reader = sent.result(), self._client.reader()
        try:
            reader.assign({place: at})
            while True:
                if any(record.offset == at for record in reader.poll(POLL).get(place, ())):
                    return True
                if (reader.position(place) or 0) > at:
                    return False
                if self._clock.monotonic() > deadline or self._stopping.is_set():
                    raise ClientError(f"reading {place.topic}[{place.partition}]: its transactions are not over")
        finally:
            reader.close()

    def _opened(self) -> TransactionalProducerPort:
        if self._producer is None:
            self._producer = self._client.transactional_producer(self._id, self._consumer)
        return self._producer

    def _discard(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close()


def _open(items: list[_Item]) -> list[_Item]:
    return [item for item in items if not item.future.done()]


def _ours(items: list[_Item]) -> list[_Item]:
    """What is to be done still. That of partitions which are gone ends here: their next owner reads it again."""
    for item in _open(items):
        if item.claim.released:
            place = item.place
            item.future.set_exception(
                PartitionLostError(f"{place.topic}[{place.partition}] went to another instance before it was written")
            )
    return _open(items)


def _judge(spoiled: _Spoiled, now: list[_Item], at_once: int) -> tuple[BaseException, int]:
    """End the work that is to blame. Returns an error of the transaction, and how much to put into the next."""
    for item, error in spoiled.failed.items():
        cause = error.__cause__
        if isinstance(error, WriteFailedError):
            if isinstance(cause, ClientError) and (cause.retriable or isinstance(cause, NotOwnerError)):
                continue
            if len(now) > 1:  # one refused write fails others too: alone it shows whose it is
                at_once = 1
                continue
        item.future.set_exception(error)
    return next(iter(spoiled.failed.values())), at_once


def _is_refused(error: BaseException) -> bool:
    """For the consumer's membership, which may be another one with the next attempt."""
    return isinstance(error, NotOwnerError) or isinstance(error.__cause__, NotOwnerError)


def _fail(items: list[_Item], error: BaseException) -> None:
    for item in _open(items):
        place = item.place
        known = error if isinstance(error, WriteFailedError) else None
        item.future.set_exception(
            known or WriteFailedError("transaction", f"{place.topic}[{place.partition}]", place.topic, error)
        )


def _closed() -> TransientError:
    return TransientError("closed before it was committed: the record comes again")
