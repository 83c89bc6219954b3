"""Apache Kafka in a container, where a Docker engine answers; testcontainers starts it and cleans up after it."""

from __future__ import annotations

from typing import Any

from kafetrain.testing.base import Broker, BrokerNotReadyError
from kafetrain.testing.node import free_ports
from kafetrain.testing.single_node import CLUSTER_ID, KAFKA_VERSION, SETTINGS, as_environment

__all__ = ["ContainerBroker"]

IMAGE = f"apache/kafka:{KAFKA_VERSION}"
DOCKER_TIMEOUT_S = 1  # for each of two questions, so that a machine without Docker loses two seconds at most
READY_TIMEOUT_S = 60.0
SHUTDOWN_PATIENCE_S = 15


class ContainerBroker(Broker):
    """A broker in a container of its own, ready when the constructor returns; the first time ever it is also pulled.

    The host's port is chosen here and not by Docker, so that it is the same after a restart.
    Raises `BrokerNotReadyError`: no engine, or Kafka did not come up in it.
    """

    can_restart = True

    def __init__(self) -> None:
        self._container: Any = None
        DockerContainer = _container_class()
        (port,) = free_ports(1)
        container = DockerContainer(IMAGE).with_bind_ports(9092, port)
        host = container.get_docker_client().host()
        super().__init__(f"{host}:{port}", "container")
        self._container = container.with_envs(CLUSTER_ID=CLUSTER_ID, **as_environment(_settings(host, port)))
        try:
            self._container.start()
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise

    def stop(self) -> None:
        self._container.get_wrapped_container().stop(timeout=SHUTDOWN_PATIENCE_S)

    def kill(self) -> None:
        wrapped = self._container.get_wrapped_container()
        wrapped.reload()
        if wrapped.status == "running":
            wrapped.kill()
            wrapped.wait()

    def start(self) -> None:
        self._container.get_wrapped_container().start()
        self._wait_until_ready()

    def close(self) -> None:
        if self._container is not None:
            self._container.stop()
            self._container = None

    def _wait_until_ready(self) -> None:
        try:
            self.check(READY_TIMEOUT_S)
        except BrokerNotReadyError as error:
            logs = self._container.get_wrapped_container().logs(tail=15)
            raise BrokerNotReadyError(f"{error}. The end of its log:\n{logs.decode(errors='replace')}") from error


def _container_class() -> Any:
    try:
        from testcontainers.core.container import DockerContainer
        from testcontainers.core.docker_client import DockerClient
    except ImportError as error:
        raise BrokerNotReadyError("testcontainers is not installed") from error
    try:
        DockerClient(timeout=DOCKER_TIMEOUT_S).client.ping()
    except Exception as error:  # its errors come from three libraries
        raise BrokerNotReadyError(f"no Docker engine answers ({error})") from error
    return DockerContainer


def _settings(host: str, port: int) -> dict[str, str]:
    return {
        **SETTINGS,
        # Two listeners, since the address that clients use leads nowhere inside the container, and the broker
        # calls itself when it ends a transaction.
        "listeners": "HOST://0.0.0.0:9092,INSIDE://localhost:19092,CONTROLLER://localhost:29093",
        "advertised.listeners": f"HOST://{host}:{port},INSIDE://localhost:19092",
        "listener.security.protocol.map": "HOST:PLAINTEXT,INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "INSIDE",
        "controller.quorum.voters": "1@localhost:29093",
        "log.dirs": "/var/lib/kafka/data",
        # As in `node`: how soon after a kill the broker may come back.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
    }
