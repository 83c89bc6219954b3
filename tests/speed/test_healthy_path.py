"""The healthy path costs almost nothing: guarded against the bare loop of the same run, with nothing beside it."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from kafetrain.testing import Broker

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
RECORDS, PAIRS, ATTEMPTS = 60_000, 3, 3
AT_LEAST = 0.8
"""Of what a bare loop of kafka-python handles in the same time, or with as much CPU: a busy machine moves either."""

MEASURE = """
import json, sys
from kafetrain.testing import kafka_broker
from tests.benchmarks.healthy import measure
with kafka_broker() as broker:
    found = measure(broker, "kafka-python", int(sys.argv[1]), 100, int(sys.argv[2]))
    print(json.dumps([found.ratios, found.cpu_ratios]))
"""


def test_where_nothing_fails_a_record_costs_little_more_than_in_a_bare_loop(kafetrain_broker: Broker) -> None:
    if not kafetrain_broker.is_real:
        pytest.skip("a mock is no measure")
    found: list[float] = []
    while len(found) < 2 * ATTEMPTS and max(found, default=0.0) < AT_LEAST:
        printed = subprocess.check_output(
            [sys.executable, "-c", MEASURE, str(RECORDS), str(PAIRS)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "KAFETRAIN_TEST_BROKERS": kafetrain_broker.bootstrap_servers},
            timeout=240,
        )
        found += [statistics.median(ratios) for ratios in json.loads(printed)]
    assert max(found) >= AT_LEAST, f"medians of {PAIRS} pairs, by time and by CPU: {found}"
