"""The examples, run as a reader runs them: every order ends, and those of a customer in their order."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kafetrain.testing import Broker

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
NAMES = sorted(
    path.stem for path in EXAMPLES.glob("*.py") if path.stem != "produce" and '"--count"' in path.read_text()
)
"""But those that `kafetrain run` runs: test_app_examples.py."""
ORDERS = 24
TIMEOUT_S = 90

pytestmark = pytest.mark.kafka

# A shell that starts pytest in the background makes it and its children ignore SIGINT.
WITH_CTRL_C = (
    "import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); sys.argv.pop(0); "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


@pytest.fixture
def broker(kafetrain_broker: Broker) -> Broker:
    if not kafetrain_broker.is_real:
        pytest.skip("the examples have no option for what clients need on a mock")
    return kafetrain_broker


@pytest.fixture
def topic(broker: Broker) -> Iterator[str]:
    """A topic with `ORDERS` orders."""
    name = f"orders-{uuid.uuid4().hex[:12]}"
    written = run("produce", broker, name, "--orders", str(ORDERS))
    assert written.splitlines() == [f"topic {name} created", f"{ORDERS} orders of 4 customers written"]
    yield name
    if broker.kind == "address":
        for prefix in ("", "retry-", "redirect-", "dlq-"):
            broker.delete_topic(f"{prefix}{name}")


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def run(name: str, broker: Broker, topic: str, *arguments: str) -> str:
    """What the example printed; it has to end well."""
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), "--brokers", broker.bootstrap_servers, "--topic", topic]
    try:
        done = subprocess.run(
            [*command, *arguments], capture_output=True, check=False, timeout=TIMEOUT_S, env=environment()
        )
    except subprocess.TimeoutExpired as late:
        pytest.fail(f"{name} does not end\n{(late.stdout or b'').decode()}\n{(late.stderr or b'').decode()}")
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def group_of(name: str) -> str:
    """The group that the example's settings name."""
    (group,) = re.findall(r'group_id="([^"]+)"', (EXAMPLES / f"{name}.py").read_text())
    return str(group)


def locks(broker: Broker, topic: str, group: str) -> object:
    command = [sys.executable, "-m", "kafetrain", "locks", topic, "--json"]
    command += ["--brokers", broker.bootstrap_servers, "--group", group]
    return json.loads(subprocess.check_output(command, stderr=subprocess.DEVNULL, timeout=TIMEOUT_S, env=environment()))


def check(output: str) -> None:
    """Every order was charged once, those of a customer in order, and each that fails failed twice before that."""
    charged: dict[str, list[int]] = defaultdict(list)
    failed: dict[int, list[int]] = defaultdict(list)
    for number, customer, attempt in re.findall(
        r"order (\d+) of (\w+): (?:charged|failed, attempt (\d+))", output, re.MULTILINE
    ):
        if attempt:
            assert int(number) not in charged[customer], f"order {number} failed after it was charged"
            failed[int(number)].append(int(attempt))
        else:
            charged[customer].append(int(number))
    assert sorted(number for numbers in charged.values() for number in numbers) == list(range(1, ORDERS + 1))
    assert charged == {customer: sorted(numbers) for customer, numbers in charged.items()}
    assert failed == {number: [1, 2] for number in range(1, ORDERS + 1) if number % 3 == 1}


@pytest.mark.parametrize("name", NAMES)
def test_every_order_ends_and_each_customer_keeps_the_order(name: str, broker: Broker, topic: str) -> None:
    check(run(name, broker, topic, "--count", str(ORDERS)))
    assert locks(broker, topic, group_of(name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_ctrl_c_ends_it_well(name: str, broker: Broker, topic: str) -> None:
    command = [sys.executable, "-c", WITH_CTRL_C, str(EXAMPLES / f"{name}.py")]
    command += ["--brokers", broker.bootstrap_servers, "--topic", topic]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            lines: list[str] = []
            while sum("charged" in line for line in lines) < ORDERS:
                lines.append(process.stdout.readline())
                assert lines[-1], process.stderr.read()
            process.send_signal(signal.SIGINT)
            process.wait(TIMEOUT_S)
        finally:
            process.kill()
        check("".join(lines))
        assert process.returncode == 0, process.stderr.read()


def test_the_test_of_the_documentation_passes(broker: Broker, tmp_path: Path) -> None:
    """The page on testing shows a test; it is run as it stands there."""
    page = (ROOT / "docs" / "pages" / "testing.md").read_text()
    found = re.search(r"<!-- run by tests/integration/test_examples.py -->\n```python\n(.*?)^```$", page, re.S | re.M)
    assert found is not None
    (tmp_path / "test_shown.py").write_text(found[1])
    is_installed = any(entry.name == "kafetrain" for entry in entry_points(group="pytest11"))
    plugin = [] if is_installed else ["-p", "kafetrain.testing.pytest_plugin"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, "test_shown.py"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=TIMEOUT_S,
        env=environment(KAFETRAIN_TEST_BROKERS=broker.bootstrap_servers),
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
