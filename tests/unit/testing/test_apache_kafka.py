"""What `ApacheKafkaBroker` does when things go wrong, on fake processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from kafetrain.testing import Broker, BrokerNotReadyError, node
from kafetrain.testing.apache_kafka import ApacheKafkaBroker
from kafetrain.testing.node import KafkaNode, free_ports


class FakeProcess:
    """Ends as scripted: one entry of `script` for each process; None: it runs until told to end."""

    script: Iterator[tuple[int | None, str]] = iter(())
    started: list[FakeProcess]
    pid = 1

    def __init__(self, command: Sequence[str], *, log: Path, scratch: Path) -> None:
        self.command = command
        self.settings = (scratch / "server.properties").read_text()
        self.code, output = next(self.script)
        with log.open("a") as file:
            file.write(output)
        self.started.append(self)

    def wait(self, timeout_s: float) -> int | None:
        return self.code

    def terminate(self, patience_s: float) -> bool:
        self.code = 143
        return True

    def kill(self) -> None:
        self.code = 137


FORMATTED: tuple[int | None, str] = (0, "")
RUNS: tuple[int | None, str] = (None, "")
PORT_TAKEN: tuple[int | None, str] = (1, "java.net.BindException: Address already in use\n")


@pytest.fixture(autouse=True)
def _fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeProcess.started = []
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(node, "SupervisedProcess", FakeProcess)
    monkeypatch.setattr(KafkaNode, "_accepts_connections", lambda self: True)
    monkeypatch.setattr(Broker, "check", lambda self, timeout_s: None)


def start(*script: tuple[int | None, str]) -> ApacheKafkaBroker:
    FakeProcess.script = iter(script)
    return ApacheKafkaBroker("java", Path("/libs"))


def test_a_port_that_was_taken_in_between_is_replaced() -> None:
    broker = start(FORMATTED, PORT_TAKEN, RUNS)
    _, first, second = FakeProcess.started
    assert first.settings != second.settings
    assert broker.bootstrap_servers in second.settings


def test_ports_that_are_always_taken_are_an_error_in_the_end(tmp_path: Path) -> None:
    with pytest.raises(BrokerNotReadyError, match="Address already in use"):
        start(FORMATTED, PORT_TAKEN, PORT_TAKEN, PORT_TAKEN)
    assert list(tmp_path.iterdir()) == []


def test_another_error_is_not_tried_again(tmp_path: Path) -> None:
    with pytest.raises(BrokerNotReadyError, match=r"(?s)Kafka ended with 1 while starting.*    FATAL no such setting"):
        start(FORMATTED, (1, "FATAL no such setting\n"))
    assert len(FakeProcess.started) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("code", "message"), [(3, "ended with 3"), (None, "took too long")])
def test_a_data_folder_that_cannot_be_formatted_is_an_error(code: int | None, message: str) -> None:
    with pytest.raises(BrokerNotReadyError, match=rf"(?s)formatting .* {message}.*\(empty\)"):
        start((code, ""))
    assert FakeProcess.started[-1].code is not None


def test_a_broker_that_never_answers_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "READY_TIMEOUT_S", 0.0)
    monkeypatch.setattr(KafkaNode, "_accepts_connections", lambda self: False)
    with pytest.raises(BrokerNotReadyError, match="not ready after 0 s"):
        start(FORMATTED, RUNS)
    assert FakeProcess.started[-1].code == 137
    assert list(tmp_path.iterdir()) == []


def test_a_broker_whose_answer_is_an_error_shows_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Broker, timeout_s: float) -> None:
        raise BrokerNotReadyError("no Kafka broker answers")

    monkeypatch.setattr(Broker, "check", refuse)
    with pytest.raises(BrokerNotReadyError, match=r"(?s)no Kafka broker answers.*OutOfMemoryError"):
        start(FORMATTED, (None, "java.lang.OutOfMemoryError\n"))


SHORT_SESSION = "broker.session.timeout.ms"


def test_only_after_a_crash_its_former_self_is_given_up_early() -> None:
    """Else the controller holds on to it, and refuses the new one, for nine seconds."""
    broker = start(FORMATTED, RUNS, RUNS, RUNS, RUNS)
    broker.stop()
    broker.start()
    assert SHORT_SESSION not in FakeProcess.started[-1].settings
    broker.kill()
    broker.start()
    assert SHORT_SESSION in FakeProcess.started[-1].settings
    broker.stop()
    broker.start()
    assert SHORT_SESSION not in FakeProcess.started[-1].settings


def test_one_that_crashed_by_itself_can_be_started_again() -> None:
    broker = start(FORMATTED, RUNS, RUNS)
    FakeProcess.started[-1].code = 134
    broker.start()
    assert SHORT_SESSION in FakeProcess.started[-1].settings
    assert broker.process_id == 1


def test_a_closed_broker_cannot_be_started_again() -> None:
    broker = start(FORMATTED, RUNS)
    broker.close()
    broker.close()  # no-op
    assert broker.process_id is None
    with pytest.raises(BrokerNotReadyError, match="was closed"):
        broker.start()


def test_free_ports_are_below_those_of_outgoing_connections() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5
    assert all(15_000 <= port < 32_000 for port in ports)
