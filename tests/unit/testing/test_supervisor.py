"""A supervised program ends when it is told to, and when its owner is gone."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kafetrain.testing import supervisor
from kafetrain.testing.supervised import SupervisedProcess

WAITS_FOR_EVER = [sys.executable, "-c", "import signal; signal.pause()"]
IGNORES_SIGTERM = """\
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
while True:
    signal.pause()
"""
REFUSES_TO_END = [sys.executable, "-c", IGNORES_SIGTERM]

Start = Callable[[list[str]], SupervisedProcess]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def start(tmp_path: Path, log: Path) -> Iterator[Start]:
    started: list[SupervisedProcess] = []

    def start(command: list[str]) -> SupervisedProcess:
        started.append(SupervisedProcess(command, log=log, scratch=tmp_path / "scratch"))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


@pytest.mark.parametrize(("order", "code"), [(supervisor.TERMINATE, -15), (supervisor.KILL, -9)])
def test_an_order_ends_the_program_and_keeps_its_files(
    tmp_path: Path, log: Path, pipe: tuple[int, int], order: bytes, code: int
) -> None:
    reading, writing = pipe
    os.write(writing, order)
    assert supervisor.supervise(WAITS_FOR_EVER, str(log), str(tmp_path), reading) == code
    os.close(writing)
    assert tmp_path.exists()


def test_when_the_owner_is_gone_the_program_is_killed_and_its_files_removed(
    tmp_path: Path, log: Path, pipe: tuple[int, int]
) -> None:
    reading, writing = pipe
    scratch = tmp_path / "scratch"
    (scratch / "data").mkdir(parents=True)
    os.close(writing)  # as the kernel does at the owner's death
    assert supervisor.supervise(REFUSES_TO_END, str(log), str(scratch), reading) == -9
    assert not scratch.exists()


def test_the_exit_code_and_all_output_of_a_program_reach_the_owner(start: Start, log: Path) -> None:
    process = start([sys.executable, "-c", "import sys; print('out', flush=True); sys.exit('err')"])
    assert process.wait(30) == 1
    assert log.read_text() == "out\nerr\n"


def test_a_missing_program_ends_at_once_with_the_reason_in_the_log(start: Start, log: Path) -> None:
    assert start(["/no/such/program"]).wait(30) == 1
    assert "No such file or directory: '/no/such/program'" in log.read_text()


def test_a_program_that_refuses_to_end_is_killed(start: Start, log: Path) -> None:
    process = start(REFUSES_TO_END)
    give_up_at = time.monotonic() + 30
    while "ready" not in log.read_text():
        assert process.wait(0.01) is None
        assert time.monotonic() < give_up_at, "the program did not come up"
    assert process.terminate(0.05) is False
    assert process.wait(0) is not None


def test_ending_it_twice_is_no_error(start: Start) -> None:
    process = start(WAITS_FOR_EVER)
    assert process.terminate(30) is True
    assert process.terminate(30) is True
    process.kill()
