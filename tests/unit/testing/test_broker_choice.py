"""Which broker `kafka_broker` takes, and what it says when there is none. All ways are fakes."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from kafetrain.testing import Broker, BrokerKind, BrokerNotReadyError, NoBrokerError, kafka_broker
from kafetrain.testing import broker as choice
from kafetrain.testing.broker import WAYS, Way, start_first


class FakeBroker(Broker):
    def __init__(self, kind: BrokerKind) -> None:
        super().__init__(f"{kind}:9092", kind)
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


class Machine:
    """Ways like the real ones; those named in `works` lead to a broker."""

    def __init__(self, *works: str) -> None:
        self.tried: list[str] = []
        self.brokers: list[FakeBroker] = []
        self._works = works
        self.ways = tuple(Way(real.name, self._starter(real.name), real.advice, is_real=real.is_real) for real in WAYS)

    def _starter(self, name: str) -> choice.Starter:
        kinds: dict[str, BrokerKind] = {
            "container": "container",
            "apache-kafka": "apache-kafka",
            "embedded": "embedded",
        }

        def start(environment: Mapping[str, str]) -> Broker:
            self.tried.append(name)
            if name not in self._works:
                raise BrokerNotReadyError(f"{name} is not here")
            self.brokers.append(FakeBroker(kinds[name]))
            return self.brokers[-1]

        return start

    def start(self, *, allow_embedded: bool = True, require_real: bool | None = None, **environment: str) -> Broker:
        return start_first(self.ways, environment, allow_embedded=allow_embedded, require_real=require_real)


def test_the_ways_are_tried_from_the_most_to_the_least_real() -> None:
    assert [way.name for way in WAYS] == ["container", "apache-kafka", "embedded"]
    assert [way.is_real for way in WAYS] == [True, True, False]


def test_the_first_way_that_works_is_taken_and_no_later_one_tried() -> None:
    machine = Machine("container", "apache-kafka", "embedded")
    assert machine.start().kind == "container"
    assert machine.tried == ["container"]


def test_a_broker_knows_why_better_ways_were_not_taken() -> None:
    broker = Machine("embedded").start()
    assert broker.kind == "embedded"
    assert not broker.is_real
    assert broker.skipped == (
        "address: KAFETRAIN_TEST_BROKERS is not set",
        "container: container is not here",
        "apache-kafka: apache-kafka is not here",
    )


@pytest.mark.parametrize("error", [OSError("no route"), RuntimeError("internal"), ImportError("no module")])
def test_any_fault_of_a_way_leads_to_the_next(error: Exception) -> None:
    def fails(environment: Mapping[str, str]) -> Broker:
        raise error

    ways = (Way("container", fails, "advice"), *Machine("apache-kafka").ways)
    broker = start_first(ways, {}, allow_embedded=True, require_real=None)
    assert broker.kind == "apache-kafka"
    assert broker.skipped[1] == f"container: {error}"


def test_a_given_address_comes_before_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Broker, "check", lambda self: None)
    machine = Machine("container", "apache-kafka", "embedded")
    broker = machine.start(KAFETRAIN_TEST_BROKERS="kafka-1:9092,kafka-2:9092", CI="true")
    assert (broker.kind, broker.bootstrap_servers) == ("address", "kafka-1:9092,kafka-2:9092")
    assert broker.is_real
    assert machine.tried == []


def test_a_given_address_that_does_not_answer_is_an_error_and_not_a_reason_to_go_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(self: Broker) -> None:
        raise BrokerNotReadyError(f"no Kafka broker answers at {self.bootstrap_servers}")

    monkeypatch.setattr(Broker, "check", refuse)
    machine = Machine("apache-kafka")
    with pytest.raises(NoBrokerError, match="KAFETRAIN_TEST_BROKERS is set, but no Kafka broker answers at gone:1"):
        machine.start(KAFETRAIN_TEST_BROKERS="gone:1")
    assert machine.tried == []


def test_on_a_ci_server_a_mock_is_not_enough_and_the_error_says_what_to_install() -> None:
    machine = Machine("embedded")
    with pytest.raises(NoBrokerError) as caught:
        machine.start(CI="true")
    assert machine.tried == ["container", "apache-kafka"]
    text = str(caught.value)
    for reason in ("container is not here", "apache-kafka is not here", "embedded: a real broker is required"):
        assert reason in text
    for advice in ("KAFETRAIN_TEST_BROKERS=host:port", "Docker engine", "openjdk-17-jre-headless maven"):
        assert advice in text
    assert "mock broker" not in text  # no advice that would not help


@pytest.mark.parametrize(
    ("ci", "require_real", "kind"),
    [("", False, "embedded"), ("false", None, "embedded"), ("true", False, "embedded"), ("", True, None)],
)
def test_a_caller_may_decide_for_itself_whether_a_mock_will_do(
    ci: str, require_real: bool | None, kind: str | None
) -> None:
    machine = Machine("embedded")
    if kind is None:
        with pytest.raises(NoBrokerError):
            machine.start(CI=ci, require_real=require_real)
    else:
        assert machine.start(CI=ci, require_real=require_real).kind == kind


def test_without_leave_the_mock_is_never_taken() -> None:
    with pytest.raises(NoBrokerError, match="needs what a mock cannot do"):
        Machine("embedded").start(allow_embedded=False, require_real=False)


def test_the_broker_is_closed_also_when_a_test_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine("apache-kafka")
    monkeypatch.setattr(choice, "WAYS", machine.ways)
    monkeypatch.delenv("KAFETRAIN_TEST_BROKERS", raising=False)
    with pytest.raises(ZeroDivisionError), kafka_broker():
        raise ZeroDivisionError
    assert [broker.closed for broker in machine.brokers] == [1]
