"""Hooks: told on a thread of their own, and never in anybody's way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from kafetrain import ConfigurationError, ErrorTracker, KafkaConsumer, Settings
from kafetrain.tracker.hooks import ROOM, Hooks
from tests.unit.tracker.conftest import record
from tests.waiting import wait_for


def test_they_are_called_in_order_on_one_thread_of_their_own() -> None:
    told: list[tuple[object, ...]] = []
    hooks = Hooks(
        lambda record, error: told.append((record.offset, error, threading.current_thread())),
        lambda key: told.append((key, threading.current_thread())),
    )
    hooks.start()
    error = ValueError("no")
    hooks.dead_letter(record(7), error)
    hooks.dead_key(b"k")
    hooks.dead_key(None)
    hooks.close()
    assert [call[:-1] for call in told] == [(7, error), (b"k",), (None,)], "what waits is called at the end"
    (thread,) = {call[-1] for call in told}
    assert thread is not threading.current_thread()


def test_without_hooks_there_is_no_thread() -> None:
    before = threading.active_count()
    hooks = Hooks()
    hooks.start()
    hooks.dead_letter(record(7), ValueError())
    hooks.dead_key(b"k")
    assert threading.active_count() == before
    hooks.close()


def test_what_they_raise_is_said_once_for_each_class_and_ends_nothing(log: list[str]) -> None:
    errors: list[BaseException] = [ValueError("payload"), ValueError("payload"), KeyError("payload"), SystemExit()]
    calls: list[bytes | None] = []

    def fail(key: bytes | None) -> None:
        calls.append(key)
        raise errors[len(calls) - 1]

    hooks = Hooks(on_dead_key=fail)
    hooks.start()
    for _ in errors:
        hooks.dead_key(b"k")
    hooks.close()
    assert len(calls) == len(errors)
    assert log == [f"the hook raised {kind}; said once" for kind in ("ValueError", "KeyError", "SystemExit")]


def test_a_hook_that_hangs_holds_up_nobody_and_bounds_what_waits(log: list[str]) -> None:
    running, finish, calls = threading.Event(), threading.Event(), []

    def hang(key: bytes | None) -> None:
        calls.append(key)
        running.set()
        finish.wait(30)

    hooks = Hooks(on_dead_key=hang)
    hooks.start()
    hooks.dead_key(b"first")
    assert running.wait(10)
    for _ in range(ROOM + 10):
        hooks.dead_key(b"k")
    assert log == [f"hooks are too slow: {ROOM} calls wait, more are dropped"]
    hooks.close()
    assert log[1:] == ["closing while a hook runs: what it was not told yet is dropped"]
    hooks.dead_key(b"after the end")
    finish.set()
    wait_for("its thread ends", lambda: not any(t.name.startswith("kafetrain-hooks") for t in threading.enumerate()))
    assert len(calls) == 1, "nobody waits for the rest any more"


async def asynchronous(key: bytes | None) -> None:
    """No hook."""


def test_what_cannot_be_called_is_refused() -> None:
    settings = Settings(group_id="billing")
    makers: list[Callable[..., Any]] = [
        lambda **hooks: ErrorTracker(settings, **hooks),
        lambda **hooks: KafkaConsumer.resilient(settings, "orders", print, **hooks),
    ]
    for make in makers:
        with pytest.raises(ConfigurationError, match="on_dead_letter must be callable with a record and an exception"):
            make(on_dead_letter="no")
        with pytest.raises(ConfigurationError, match="on_dead_key is a coroutine function"):
            make(on_dead_key=asynchronous)
