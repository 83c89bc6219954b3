"""The transactional producer port on a simulated cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import timedelta
from typing import TYPE_CHECKING

from kafetrain.client.ports import ClientError, Committed, OutcomeUnknownError, OutgoingRecord
from kafetrain.record import TopicPartition
from kafetrain.testing.simulated.faults import Hold, LoseAnswer, Request
from kafetrain.testing.simulated.group import Membership
from kafetrain.testing.simulated.producer import SimulatedProducer

if TYPE_CHECKING:
    from kafetrain.testing.simulated.core import ClusterCore, Instance

__all__ = ["SimulatedTransactions"]


class SimulatedTransactions:
    """A `TransactionalProducerPort`. `producer`: what its records go through; their writes can be held like others."""

    def __init__(
        self,
        core: ClusterCore,
        instance: Instance,
        id: str,
        membership: Callable[[], Membership],
        *,
        delivery_timeout_s: float,
    ) -> None:
        self._core, self._instance, self._id, self._membership = core, instance, id, membership
        self._member: Membership | None = None
        self._is_open = self._is_spoiled = False
        lost = core.ask(instance, Request.BEGIN_TRANSACTIONS)
        with core.mutex:
            self._epoch = core.coordinator.init(id)
        core.wake()
        if lost is not None:
            raise lost
        self.producer = SimulatedProducer(core, instance, delivery_timeout_s=delivery_timeout_s, append=self._append)

    def begin(self) -> None:
        self._member = self._membership()
        self._is_open = True

    def send(self, record: OutgoingRecord) -> Future[int]:
        sent = self.producer.send(record)
        sent.add_done_callback(self._ended)
        return sent

    def commit(self, next_offsets: Mapping[TopicPartition, Committed]) -> None:
        if self._member is None or self._is_spoiled or self.producer.open:
            raise ClientError(f"committing a transaction of {self._id}: not everything is acknowledged", retriable=True)
        lost = self._core.ask(self._instance, Request.TRANSACTION_OFFSETS, {place.topic for place in next_offsets})
        with self._core.mutex:
            self._core.coordinator.add_offsets(self._id, self._epoch, self._instance.name, self._member, next_offsets)
        if lost is not None:
            raise lost
        self._is_open = False
        try:
            self._end(commit=True)
        except ClientError as error:
            raise OutcomeUnknownError(str(error), retriable=True) from error

    def close(self) -> None:
        if self._is_open and self._core.reaches(self._instance):
            try:
                self._end(commit=False)
            except ClientError:
                pass  # it is left to its timeout, or to the id's next producer
        self._is_open = False
        self.producer.close(timedelta(0))

    def _end(self, *, commit: bool) -> None:
        fault = self._core.begin(self._instance, Request.END_TRANSACTION)
        with self._core.mutex:
            transaction = self._core.coordinator.decide(self._id, self._epoch, commit=commit)
            if transaction is not None and not isinstance(fault, Hold):
                transaction.finish()
        self._core.wake()
        if isinstance(fault, LoseAnswer):
            raise fault.error

    def _append(self, record: OutgoingRecord) -> int:
        return self._core.coordinator.append(self._id, self._epoch, record, self._instance.name)

    def _ended(self, sent: Future[int]) -> None:
        self._is_spoiled = self._is_spoiled or sent.exception() is not None
