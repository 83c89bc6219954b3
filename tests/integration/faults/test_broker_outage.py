"""The broker goes away in the middle, and comes back with the same address and data."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kafetrain.testing import Broker, NoBrokerError, kafka_broker
from tests.integration.faults.history import History
from tests.integration.faults.scenario import THREE_IN_TEN_FAIL, Scenario
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


@pytest.fixture
def new_scenario(own_broker: Broker, tmp_path: Path) -> Iterator[Callable[..., Scenario]]:
    """With work enough for the outage: the handlers go on failing and succeeding while nothing can be written."""
    with contextlib.ExitStack() as closing:

        def new(**values: Any) -> Scenario:
            topic = own_broker.create_unique_topic(2, prefix="orders")
            scenario = Scenario(own_broker, topic, tmp_path, work_ms=30, backoff_ms=500, **values)
            closing.callback(scenario.close)
            scenario.produce(THREE_IN_TEN_FAIL * 80)
            return scenario

        yield new


def is_in_full_swing(history: History) -> bool:
    return history.count("ended", retry=True) >= 5 and history.count("failed", retry=True) >= 3


def test_an_outage_is_survived_or_ends_the_process_with_a_clear_error_and_nothing_is_lost(
    own_broker: Broker, new_scenario: Callable[..., Scenario]
) -> None:
    patient, impatient = new_scenario(client_options=DEFAULTS), new_scenario()
    survivor, victim = patient.start(), impatient.start()
    for scenario in (patient, impatient):
        scenario.wait_for("retries fail and succeed", is_in_full_swing)
    own_broker.stop()
    over_at = time.monotonic() + OUTAGE_S
    # Its writes may take 0.8 of its session of 6 s.
    assert victim.wait(OUTAGE_S) == 1
    last_line = victim.tail(1)
    assert last_line.startswith("kafetrain.errors.WriteFailedError: ")
    assert f"{impatient.topic}" in last_line
    assert "a restart resumes here" in last_line
    wait_for("the outage is over", lambda: time.monotonic() > over_at)
    own_broker.start()
    patient.finish(survivor).nothing_twice()
    impatient.finish(impatient.start())


def test_a_crash_of_the_broker_is_survived(own_broker: Broker, new_scenario: Callable[..., Scenario]) -> None:
    scenario = new_scenario(client_options=DEFAULTS)
    process = scenario.start()
    scenario.wait_for("retries fail and succeed", is_in_full_swing)
    own_broker.kill()
    own_broker.start()
    scenario.finish(process).nothing_twice()
