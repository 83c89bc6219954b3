"""Threads that take tasks, and who waits for one of them to be free."""

from __future__ import annotations

import threading
import time

import pytest

from kafetrain.errors import KafetrainError
from kafetrain.threads import Workers, stop_at_exit

LONG_S = 60.0


def test_a_worker_is_free_before_its_first_task_and_after_its_last() -> None:
    workers, may_end = Workers(1, "test-free"), threading.Event()
    ended: list[str] = []

    def task() -> None:
        may_end.wait(LONG_S)
        ended.append("task")

    began = time.monotonic()
    workers.wait_for_a_free_one(LONG_S)
    workers.start()
    workers.submit(task)
    threading.Thread(target=may_end.set).start()
    workers.wait_for_a_free_one(LONG_S)
    assert ended == ["task"]
    assert time.monotonic() - began < LONG_S
    workers.request_stop()
    assert workers.join(LONG_S)


def test_what_a_stop_raises_hides_nothing_that_was_raised_before() -> None:
    def stop() -> None:
        raise KafetrainError("it could not end")

    with pytest.raises(KafetrainError, match="could not end"):
        stop_at_exit(stop, None)
    stop_at_exit(stop, ValueError("what is raised already"))
