"""The broker goes away in the middle, and comes back with the same address and data."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from kafetrain import KafkaConsumer, Record, Settings
from kafetrain.testing import Broker, NoBrokerError, kafka_broker
from tests.integration.faults.history import History
from tests.integration.faults.scenario import THREE_IN_TEN_FAIL, Process, Scenario
from tests.waiting import wait_for

pytestmark = pytest.mark.kafka

OUTAGE_S = 20.0
DEFAULTS = {"session_timeout_ms": 45_000, "heartbeat_interval_ms": 3_000}
"""Of kafetrain: a write may take 36 s."""


@pytest.fixture(scope="module")
def own_broker() -> Iterator[Broker]:
    try:
        with kafka_broker(allow_embedded=False) as broker:
            if not broker.can_restart:
                pytest.skip(f"a broker of kind {broker.kind!r} cannot be restarted")
            yield broker
    except NoBrokerError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def new_scenario(
    own_broker: Broker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., tuple[Scenario, Process]]]:
    """A scenario and a process in full swing: on both sides handlers go on, while nothing can be written."""
    with contextlib.ExitStack() as closing:

        def new(**values: Any) -> tuple[Scenario, Process]:
            topic, folder = own_broker.create_unique_topic(2, prefix="orders"), tmp_path_factory.mktemp("outage")
            scenario = Scenario(own_broker, topic, folder, work_ms=30, backoff_ms=300, **values)
            closing.callback(scenario.close)
            scenario.produce(THREE_IN_TEN_FAIL * 24)
            return scenario, scenario.start()

        yield new


def wait_until_in_full_swing(*scenarios: Scenario) -> None:
    def both_sides_fail_and_succeed(history: History) -> bool:
        return all(history.count(kind, retry=retry) >= 3 for kind in ("ended", "failed") for retry in (False, True))

    for scenario in scenarios:
        scenario.wait_for("both sides fail and succeed", both_sides_fail_and_succeed)


@dataclass
class Outage:
    """What was seen while the broker was away. It is back now."""

    patient: Scenario
    survivor: Process
    impatient: Scenario
    victim: Process
    victims_exit_code: int
    stop_took_s: float
    threads_left: list[str]


@pytest.fixture(scope="module")
def outage(own_broker: Broker, new_scenario: Callable[..., tuple[Scenario, Process]]) -> Outage:
    """One outage for all: it takes its time."""
    patient, survivor = new_scenario(client_options=DEFAULTS)
    impatient, victim = new_scenario(shutdown_timeout_s=1.0)
    to_be_stopped = own_broker.create_unique_topic(2, prefix="orders")
    wait_until_in_full_swing(patient, impatient)
    threads = set(threading.enumerate())
    consumer, is_writing = failing_consumer(own_broker, to_be_stopped, patient)
    with contextlib.ExitStack() as stopping:
        stopping.callback(consumer.stop)
        assert is_writing.wait(30)
        own_broker.stop()
        over_at = time.monotonic() + OUTAGE_S
        began = time.monotonic()
        stopping.close()
        stop_took_s = time.monotonic() - began

    def left() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread not in threads]

    with contextlib.suppress(AssertionError):
        wait_for("its threads have ended", lambda: not left(), timeout=over_at - time.monotonic())
    threads_left = left()
    wait_for("the outage is over", lambda: time.monotonic() > over_at)
    own_broker.start()
    for scenario in (patient, impatient):
        scenario.reconnect()
    return Outage(patient, survivor, impatient, victim, victim.wait(), stop_took_s, threads_left)


def failing_consumer(broker: Broker, topic: str, writer: Scenario) -> tuple[Any, threading.Event]:
    """A consumer in this process that redirects all the while, and the event that it has begun."""
    writer.cluster.write_all(topic, [(number % 2, b"%d" % number, b"") for number in range(2000)])
    settings = Settings(
        bootstrap_servers=broker.bootstrap_servers,
        group_id="to-be-stopped",
        client_options=broker.client_options,
        shutdown_timeout=timedelta(seconds=1),
        _env_file=None,
    )
    redirects, never = threading.Event(), threading.Event()

    def fail(record: Record) -> None:
        never.wait(0.01)
        if record.offset > 20:
            redirects.set()
        raise ValueError("as always")

    consumer = KafkaConsumer.resilient(settings, topic, fail)
    consumer.start()
    return consumer, redirects


def test_a_process_whose_writes_may_take_longer_than_the_outage_goes_on_as_if_nothing_had_been(outage: Outage) -> None:
    outage.patient.finish(outage.survivor).retries_end_once()


def test_a_process_whose_writes_fail_ends_with_a_clear_error_and_the_next_one_goes_on(outage: Outage) -> None:
    assert outage.victims_exit_code == 1
    last_line = outage.victim.tail(1)
    assert last_line.startswith("kafetrain.errors.WriteFailedError: ")
    assert outage.impatient.topic in last_line
    assert "a restart resumes here" in last_line
    outage.impatient.finish(outage.impatient.start())


def test_a_stop_during_an_outage_is_bounded_and_leaves_nothing(outage: Outage) -> None:
    # 1 s of shutdown_timeout for the handlers, the same for what they have written, and what the clients take.
    assert outage.stop_took_s < 15
    assert outage.threads_left == []


def test_a_crash_of_the_broker_is_survived(
    own_broker: Broker, new_scenario: Callable[..., tuple[Scenario, Process]]
) -> None:
    scenario, process = new_scenario(client_options=DEFAULTS)
    wait_until_in_full_swing(scenario)
    own_broker.kill()
    own_broker.start()
    scenario.reconnect()
    scenario.finish(process).retries_end_once()
