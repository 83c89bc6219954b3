"""Three Kafka nodes on loopback, each broker and controller. Every record is on all of them, so one may be away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kafetrain.testing.base import Broker, BrokerNotReadyError
from kafetrain.testing.node import READY_TIMEOUT_S, KafkaNode, on_free_ports
from kafetrain.testing.single_node import SETTINGS

__all__ = ["ApacheKafkaCluster"]

NODES = 3
REPLICATED = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    # A dead broker's leaderships move after 3 s and not after 9. The machine may be too busy for less.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # Who comes back leads again what it led, and does not wait five minutes for it.
    "leader.imbalance.check.interval.seconds": "2",
    "leader.imbalance.per.broker.percentage": "0",
}


class ApacheKafkaCluster(Broker):
    """Ready when the constructor returns, in about six seconds and with 256 MiB of heap for each node.

    `stop`, `kill` and `start` are for all nodes; `nodes[number]` has them for one. A node's `start` returns when it
    serves requests again, which is before it leads anything.
    Raises `BrokerNotReadyError` with the last lines of a node's log.
    """

    can_restart = True

    def __init__(self, java: str, libs: Path, *, java_options: Sequence[str] = ("-Xmx256m",)) -> None:
        self.nodes = [KafkaNode(java, libs, java_options=java_options) for _ in range(NODES)]
        try:
            on_free_ports(2 * NODES, self._start_on)
        except BaseException:
            self.close()
            raise

    def stop(self) -> None:
        _at_once(node.stop for node in self.nodes)

    def kill(self) -> None:
        _at_once(node.kill for node in self.nodes)

    def start(self) -> None:
        _at_once(node.start for node in self.nodes)  # none is ready before most of them are
        try:
            self.check(READY_TIMEOUT_S)
        except BrokerNotReadyError as error:
            raise BrokerNotReadyError(f"{error}. {self.nodes[0].log_tail()}") from error

    def close(self) -> None:
        _at_once(node.close for node in self.nodes)

    def leaders(self, topic: str) -> dict[int, int]:
        """The number of the node that leads each partition, by partition; -1 where none does."""
        return {each["partition_index"]: each["leader_id"] - 1 for each in self._partitions(topic)}

    def in_sync(self, topic: str) -> bool:
        """Has every partition all of its copies?"""
        return all(len(each["isr_nodes"]) == NODES for each in self._partitions(topic))

    def _partitions(self, topic: str) -> list[dict[str, Any]]:
        from kafka.errors import KafkaError

        give_up_at = time.monotonic() + READY_TIMEOUT_S
        while True:
            try:
                with self._admin() as admin:
                    (described,) = admin.describe_topics([topic])
                return list(described["partitions"])
            except KafkaError as error:  # it asks any node, also one that is away
                if not error.retriable or time.monotonic() > give_up_at:
                    raise

    def _start_on(self, ports: list[int]) -> None:
        own, controllers = ports[:NODES], ports[NODES:]
        super().__init__(",".join(f"127.0.0.1:{port}" for port in own), "apache-kafka")
        voters = ",".join(f"{id}@127.0.0.1:{port}" for id, port in enumerate(controllers, start=1))
        for id, (node, port, controller) in enumerate(zip(self.nodes, own, controllers, strict=True), start=1):
            listeners = f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}"
            settings = {"node.id": f"{id}", "listeners": listeners, "controller.quorum.voters": voters}
            node.configure({**SETTINGS, **REPLICATED, **settings}, port)
        try:
            self.start()
        except BaseException:
            self.kill()
            raise


def _at_once(calls: Iterable[Callable[[], None]]) -> None:
    """All of them, to their ends; raises the first error."""
    with ThreadPoolExecutor(NODES) as pool:
        futures = [pool.submit(call) for call in calls]
    for future in futures:
        future.result()
