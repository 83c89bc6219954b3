"""The client port on a simulated cluster: all that one instance of an application has open."""

from __future__ import annotations

from kafetrain.client.ports import AdminPort, ConsumerPort, ProducerPort, TransactionalProducerPort
from kafetrain.testing.simulated.admin import SimulatedAdmin
from kafetrain.testing.simulated.consumer import SimulatedConsumer
from kafetrain.testing.simulated.core import ClusterCore, Instance
from kafetrain.testing.simulated.producer import SimulatedProducer, Write
from kafetrain.testing.simulated.transactional_producer import SimulatedTransactions

__all__ = ["SimulatedClient"]


class SimulatedClient:
    """A `Client`, a `TransactionalClient` too: one instance of an application."""

    def __init__(
        self, core: ClusterCore, instance: Instance, session_s: float, patience_s: float, delivery_s: float
    ) -> None:
        self._core, self.instance = core, instance
        self._session_s, self._patience_s, self._delivery_s = session_s, patience_s, delivery_s
        self._producers: list[SimulatedProducer] = []

    def group_consumer(self, group: str, *, auto_offset_reset: str, role: str = "") -> ConsumerPort:
        return SimulatedConsumer(
            self._core,
            self.instance,
            group,
            auto_offset_reset,
            session_s=self._session_s,
            patience_s=self._patience_s,
        )

    def reader(self) -> ConsumerPort:
        return SimulatedConsumer(self._core, self.instance, None, session_s=0.0, patience_s=0.0)

    def producer(self) -> ProducerPort:
        producer = SimulatedProducer(self._core, self.instance, delivery_timeout_s=self._delivery_s)
        self._producers.append(producer)
        return producer

    def transactional_producer(self, id: str, consumer: ConsumerPort) -> TransactionalProducerPort:
        if not isinstance(consumer, SimulatedConsumer):
            raise TypeError(f"a {type(consumer).__name__} is no consumer of this client")
        # What is not acknowledged before its transaction is aborted never counts.
        delivery_s = min(self._delivery_s, 0.8 * self._core.coordinator.timeout_s)
        transactions = SimulatedTransactions(
            self._core, self.instance, id, consumer.membership, delivery_timeout_s=delivery_s
        )
        self._producers = [producer for producer in self._producers if not producer.is_over]
        self._producers.append(transactions.producer)
        return transactions

    @property
    def delivery_timeout_s(self) -> float:
        return self._delivery_s

    def admin(self) -> AdminPort:
        return SimulatedAdmin(self._core, self.instance)

    def open_writes(self) -> list[Write]:
        return [write for producer in self._producers for write in producer.open]

    def go_on(self) -> None:
        """See `SimulatedCluster.settle`."""
        for producer in self._producers:
            producer.go_on()
