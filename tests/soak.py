"""A soak: three brokers, three instances, production without a pause, and something dies every few seconds.

    python -m tests.soak                  # five minutes
    python -m tests.soak --minutes 60 --seed 7

Instances are killed, stopped and replaced, or frozen for less than their session; brokers are killed and restarted, one
at a time. At the end everything is handled to its end, and all promises are checked. Exit code 1: one was broken.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from kafetrain.testing.apache_kafka_cluster import ApacheKafkaCluster
from tests.integration.faults.history import BrokenPromise, History
from tests.integration.faults.scenario import Process, Scenario
from tests.integration.faults.worker import Plan
from tests.integration.own_kafka import distribution
from tests.waiting import wait_for

PARTITIONS = 6
INSTANCES = 3
SESSION = {"session_timeout_ms": 20_000, "heartbeat_interval_ms": 1_000}
"""Longer than a broker's death takes a leader away, so that writes outlast it."""

PLANS = (Plan(1), Plan(), Plan(), Plan(2), Plan(work_ms=100), Plan(), Plan(), Plan(1, work_ms=100), Plan(), Plan())
FROZEN_S = 5.0


class Soak:
    """What happens to the instances and brokers. One thread."""

    def __init__(self, cluster: ApacheKafkaCluster, scenario: Scenario, seed: int) -> None:
        self._cluster, self._scenario, self._chance = cluster, scenario, random.Random(seed)
        self._pause = threading.Event()  # never set
        self.running = [scenario.start() for _ in range(INSTANCES)]

    def run(self, seconds: float) -> None:
        ends_at = time.monotonic() + seconds
        faults: list[Callable[[], str]] = [
            self._kill,
            self._replace,
            self._freeze,
            self._kill_broker,
            self._restart_broker,
        ]
        while time.monotonic() < ends_at:
            at = len(self._scenario.history().events)
            said = self._chance.choice(faults)()
            wait_for("they go on", lambda: len(self._scenario.history().events) > at + 100, timeout=120)  # noqa: B023 - it is over by then
            print(f"{ends_at - time.monotonic():5.0f} s left: {said}", file=sys.stderr)

    def _any(self) -> Process:
        process = self.running.pop(self._chance.randrange(len(self.running)))
        self.wait_until_it_works(process)  # before that, SIGTERM is not yet handled
        return process

    def wait_until_it_works(self, process: Process) -> None:
        def works(history: History) -> bool:
            return any(event.pid == process.pid for event in history.events)

        self._scenario.wait_for(f"process {process.pid} works", works, timeout=120)

    def _kill(self) -> str:
        process = self._any()
        process.kill()
        self.running.append(self._scenario.start())
        return f"instance {process.pid} was killed"

    def _replace(self) -> str:
        process = self._any()
        process.stop()
        self.running.append(self._scenario.start())
        return f"instance {process.pid} was replaced"

    def _freeze(self) -> str:
        process = self._chance.choice(self.running)
        process.freeze()
        self._pause.wait(FROZEN_S)
        process.thaw()
        return f"instance {process.pid} was frozen for {FROZEN_S:g} s"

    def _kill_broker(self) -> str:
        return self._away(lambda number: self._cluster.nodes[number].kill(), "killed")

    def _restart_broker(self) -> str:
        return self._away(lambda number: self._cluster.nodes[number].stop(), "stopped")

    def _away(self, end: Callable[[int], None], how: str) -> str:
        number = self._chance.randrange(len(self._cluster.nodes))
        end(number)
        topic = self._scenario.topic
        wait_for("others lead", lambda: not {number, -1} & {*self._cluster.leaders(topic).values()}, timeout=60)
        self._cluster.nodes[number].start()
        topics = [topic, *(f"{prefix}-{topic}" for prefix in ("retry", "redirect", "dlq")), "__consumer_offsets"]
        wait_for("every copy is there", lambda: all(map(self._cluster.in_sync, topics)), timeout=120)
        return f"broker {number} was {how}, and is back"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    print(f"seed {options.seed}", file=sys.stderr)
    with contextlib.ExitStack() as closing:
        folder = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="kafetrain-soak-")))
        cluster = closing.enter_context(contextlib.closing(ApacheKafkaCluster(*distribution())))
        topic = cluster.create_unique_topic(PARTITIONS, prefix="orders")
        scenario = Scenario(cluster, topic, folder, keys=40, client_options=SESSION, backoff_ms=200, work_ms=5)
        closing.callback(scenario.close)
        try:
            with scenario.producing(PLANS):
                soak = Soak(cluster, scenario, options.seed)
                soak.run(options.minutes * 60)
                for process in soak.running:
                    soak.wait_until_it_works(process)
            scenario.wait_until_settled(timeout=180)
            last = soak.running.pop()
            for process in soak.running:
                process.stop()
            history = scenario.finish(last)
        except (BrokenPromise, AssertionError) as error:
            print(error, file=sys.stderr)
            return 1
    print(f"{len(scenario.plans)} records, {history.count('started')} runs, {history.killed} kills: all promises kept")
    return 0


if __name__ == "__main__":
    sys.exit(main())
