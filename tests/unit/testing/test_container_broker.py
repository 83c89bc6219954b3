"""The container's lifecycle and settings, on a fake of testcontainers."""

from __future__ import annotations

import pytest

from kafetrain.testing import Broker, BrokerNotReadyError, containers
from kafetrain.testing.containers import ContainerBroker
from kafetrain.testing.single_node import as_environment


class FakeContainer:
    """Stands for testcontainers' container, its Docker client and docker's own container, all in one."""

    last: FakeContainer

    def __init__(self, image: str) -> None:
        self.image = image
        self.calls: list[str] = []
        self.status = "created"
        FakeContainer.last = self

    def with_bind_ports(self, inside: int, outside: int) -> FakeContainer:
        self.ports = (inside, outside)
        return self

    def with_envs(self, **variables: str) -> FakeContainer:
        self.variables = variables
        return self

    def get_docker_client(self) -> FakeContainer:
        return self

    def get_wrapped_container(self) -> FakeContainer:
        return self

    def host(self) -> str:
        return "docker-host"

    def reload(self) -> None: ...

    def wait(self) -> None: ...

    def logs(self, tail: int) -> bytes:
        return b"the log's end"

    def start(self) -> None:
        self.calls.append("start")
        self.status = "running"

    def stop(self, timeout: int | None = None) -> None:
        self.calls.append("remove" if timeout is None else "stop")
        self.status = "exited"

    def kill(self) -> None:
        self.calls.append("kill")
        self.status = "exited"


@pytest.fixture(autouse=True)
def _engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "_container_class", lambda: FakeContainer)
    monkeypatch.setattr(Broker, "check", lambda self, timeout_s: None)


def test_clients_outside_get_the_host_port_and_the_broker_an_address_that_works_inside() -> None:
    with ContainerBroker() as broker:
        container = FakeContainer.last
        port = container.ports[1]
        assert container.image == "apache/kafka:4.1.0"
        assert broker.bootstrap_servers == f"docker-host:{port}"
        listeners = container.variables["KAFKA_ADVERTISED_LISTENERS"]
        assert listeners == f"HOST://docker-host:{port},INSIDE://localhost:19092"
        assert container.variables["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


def test_a_restart_keeps_the_container_and_close_removes_it() -> None:
    broker = ContainerBroker()
    broker.stop()
    broker.start()
    broker.kill()
    broker.kill()
    broker.close()
    broker.close()
    assert FakeContainer.last.calls == ["start", "stop", "start", "kill", "remove"]


def test_a_kafka_that_does_not_come_up_is_removed_and_its_log_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Broker, timeout_s: float) -> None:
        raise BrokerNotReadyError("no Kafka broker answers")

    monkeypatch.setattr(Broker, "check", refuse)
    with pytest.raises(BrokerNotReadyError, match="the log's end"):
        ContainerBroker()
    assert FakeContainer.last.calls == ["start", "remove"]


def test_without_an_engine_the_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("testcontainers")
    monkeypatch.undo()
    monkeypatch.setenv("DOCKER_HOST", "unix:///no/such/socket")
    with pytest.raises(BrokerNotReadyError, match="no Docker engine answers"):
        ContainerBroker()


def test_settings_are_named_as_the_image_reads_them() -> None:
    assert as_environment({"log.dirs": "/data"}) == {"KAFKA_LOG_DIRS": "/data"}
