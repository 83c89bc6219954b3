"""The healthy path costs almost nothing. By CPU time, which other work on the machine hardly moves."""

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
"""Of what a bare loop of kafka-python handles with as much CPU."""

MEASURE = """
import json, sys
from kafetrain.testing import kafka_broker
from tests.benchmarks.healthy import measure
with kafka_broker() as broker:
    print(json.dumps(measure(broker, "kafka-python", int(sys.argv[1]), 100, int(sys.argv[2])).cpu_ratios))
"""


def test_where_nothing_fails_a_record_costs_little_more_than_in_a_bare_loop(kafetrain_broker: Broker) -> None:
    if not kafetrain_broker.is_real:
        pytest.skip("a mock is no measure")
    # Where coverage is measured, each line of kafetrain's would cost many times its time.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    found: list[float] = []
    while len(found) < ATTEMPTS and max(found, default=0.0) < AT_LEAST:
        printed = subprocess.check_output(
            [sys.executable, "-c", MEASURE, str(RECORDS), str(PAIRS)],
            cwd=ROOT,
            env={**plain, "PYTHONPATH": str(ROOT), "KAFETRAIN_TEST_BROKERS": kafetrain_broker.bootstrap_servers},
            timeout=240,
        )
        found.append(statistics.median(json.loads(printed)))
    assert max(found) >= AT_LEAST, f"medians of {PAIRS} pairs: {found}"
