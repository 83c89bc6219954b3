"""The network between one instance and the broker is gone for a while; nobody else notices."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import NamedTuple, get_args

import pytest

from kafetrain.testing.apache_kafka import ApacheKafkaBroker
from tests.integration.faults.proxy import Fault, Proxy
from tests.integration.faults.scenario import SOON_MISSED, THREE_IN_TEN_FAIL, Process, Scenario
from tests.integration.own_kafka import distribution

pytestmark = pytest.mark.kafka

OUTAGE_S = 20.0
LONG_SESSION = {"session_timeout_ms": 45_000, "heartbeat_interval_ms": 1_000}
"""Longer than the outage, as by default: the instance keeps its partitions, and its writes have 36 s."""

FAULTS: tuple[Fault, ...] = get_args(Fault)
EXPIRED = "expired"


class Case(NamedTuple):
    """`process` is behind the proxy. `other` is not, where there is one."""

    scenario: Scenario
    process: Process
    proxy: Proxy
    other: Process | None = None


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Case]]:
    """One outage for all, since it takes its time; the network is back when this is there."""
    with contextlib.ExitStack() as closing:
        proxies = {fault: closing.enter_context(contextlib.closing(Proxy())) for fault in (*FAULTS, EXPIRED)}
        names = {fault: fault.upper() for fault in proxies}
        broker = closing.enter_context(
            ApacheKafkaBroker(
                *distribution(),
                listeners=dict.fromkeys(names.values(), "PLAINTEXT"),
                advertised={names[fault]: proxy.address for fault, proxy in proxies.items()},
            )
        )
        assert isinstance(broker, ApacheKafkaBroker)
        made: dict[str, Case] = {}
        for fault, proxy in proxies.items():
            proxy.target = broker.addresses[names[fault]]
            topic, folder = broker.create_unique_topic(2, prefix="orders"), tmp_path_factory.mktemp(fault)
            options = SOON_MISSED if fault == EXPIRED else LONG_SESSION
            scenario = Scenario(broker, topic, folder, work_ms=30, backoff_ms=300, client_options=options)
            closing.callback(scenario.close)
            scenario.produce(THREE_IN_TEN_FAIL * 12)
            process = scenario.start(servers=proxy.address)
            made[fault] = Case(scenario, process, proxy, scenario.start() if fault == EXPIRED else None)
        for case in made.values():
            case.scenario.wait_for("it is in full swing", lambda history: history.count("failed", retry=True) >= 3)
        for fault in FAULTS:
            made[fault].proxy.break_off(fault)
        expired = made[EXPIRED]
        expired.scenario.expect_zombie(expired.process, lambda: expired.proxy.break_off("stall"))
        threading.Event().wait(OUTAGE_S)  # this is the outage
        for case in made.values():
            case.proxy.mend()
        yield made


@pytest.mark.parametrize("fault", FAULTS)
def test_an_instance_whose_session_outlasts_the_outage_goes_on_as_if_nothing_had_been(
    fault: str, cases: Mapping[str, Case]
) -> None:
    case = cases[fault]
    case.scenario.finish(case.process).retries_end_once()


def test_an_instance_that_is_given_up_meanwhile_loses_nothing_and_leaves_no_lock(cases: Mapping[str, Case]) -> None:
    """They are another's after 6 s. Keys that it still runs or writes are not in order with that, all others are."""
    scenario, process, _, other = cases[EXPIRED]
    assert other is not None
    scenario.wait_until_back(process)
    scenario.produce(THREE_IN_TEN_FAIL)
    scenario.wait_until_settled()
    process.terminate()
    assert process.wait() == 0 or process.tail(1).startswith("kafetrain.errors.WriteFailedError: "), process.tail()
    scenario.finish(other)
