"""Three brokers, everything on all of them: one dies, leaders move, it comes back, and leaders move again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from kafetrain.testing.apache_kafka_cluster import ApacheKafkaCluster
from tests.integration.faults.history import History
from tests.integration.faults.scenario import Process, Scenario
from tests.integration.own_kafka import distribution
from tests.waiting import wait_for

pytestmark = pytest.mark.kafka

PARTITIONS = 4
LONG_SESSION = {"session_timeout_ms": 45_000, "heartbeat_interval_ms": 1_000}
"""Both instances keep what they have: it is the brokers that come and go."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[ApacheKafkaCluster]:
    with contextlib.closing(ApacheKafkaCluster(*distribution())) as cluster:
        yield cluster


@pytest.fixture
def scenario(cluster: ApacheKafkaCluster, tmp_path: Path) -> Iterator[Scenario]:
    topic = cluster.create_unique_topic(PARTITIONS, prefix="orders")
    with contextlib.closing(
        Scenario(cluster, topic, tmp_path, keys=12, client_options=LONG_SESSION, backoff_ms=200, work_ms=10)
    ) as scenario:
        yield scenario


def wait_until_all_goes_on(scenario: Scenario, *processes: Process) -> None:
    """From now on first runs and retries of every partition."""
    at = len(scenario.history().events)

    def goes_on(history: History) -> bool:
        recent = History(history.events[at:])
        return all(
            {each for process in processes for each in recent.partitions(process.pid, retry=retry)}
            == set(range(PARTITIONS))
            for retry in (False, True)
        )

    scenario.wait_for("first runs and retries of every partition go on", goes_on)


def test_a_broker_dies_and_comes_back_while_leaders_move(cluster: ApacheKafkaCluster, scenario: Scenario) -> None:
    with scenario.producing():
        both = scenario.start(), scenario.start()
        wait_until_all_goes_on(scenario, *both)
        dead = cluster.leaders(scenario.topic)[0]
        cluster.nodes[dead].kill()
        wait_for("others lead", lambda: not {dead, -1} & {*cluster.leaders(scenario.topic).values()}, timeout=120)
        wait_until_all_goes_on(scenario, *both)
        cluster.nodes[dead].start()
        wait_for("it leads again", lambda: dead in cluster.leaders(scenario.topic).values(), timeout=120)
        wait_until_all_goes_on(scenario, *both)
    scenario.wait_until_settled()
    both[0].stop()
    scenario.finish(both[1]).retries_end_once()
