"""What the application wants to be told: a record that died, a key that stands still.

    Writes.die ─> room for one more? ─> queue ─> the hook   (thread: kafetrain-hooks)
                    └─ no: not told, one warning

The flow never waits for a hook and never sees its error: an alarm that is broken must not become an outage.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from loguru import logger

from kafetrain.errors import ConfigurationError
from kafetrain.record import Record
from kafetrain.threads import Workers

__all__ = ["Hooks", "OnDeadKey", "OnDeadLetter"]

OnDeadLetter: TypeAlias = Callable[[Record, BaseException], object]
OnDeadKey: TypeAlias = Callable[["bytes | None"], object]

ROOM = 1000
"""Calls that wait for a hook to return; more are dropped."""
PATIENCE_S = 1.0
"""At the end, for calls that still wait."""


class Hooks:
    """Any thread tells, one thread of its own calls; without a hook there is none. Raises `ConfigurationError`."""

    def __init__(self, on_dead_letter: OnDeadLetter | None = None, on_dead_key: OnDeadKey | None = None) -> None:
        _check("on_dead_letter", on_dead_letter, "with a record and an exception")
        _check("on_dead_key", on_dead_key, "with a key, bytes or None")
        self._on_dead_letter, self._on_dead_key = on_dead_letter, on_dead_key
        self._workers: Workers | None = None
        self._room = threading.Semaphore(ROOM)
        self._dropped = False
        self._gave_up = False
        self._said: set[tuple[str, str]] = set()

    def start(self) -> None:
        if self._on_dead_letter is not None or self._on_dead_key is not None:
            self._gave_up = False
            self._workers = Workers(1, "kafetrain-hooks")
            self._workers.start()

    def dead_letter(self, record: Record, error: BaseException) -> None:
        """The record's dead letter is durable."""
        if self._on_dead_letter is not None:
            self._tell("on_dead_letter", partial(self._on_dead_letter, record, error))

    def dead_key(self, key: bytes | None) -> None:
        """The key's lock says `dead`, durably."""
        if self._on_dead_key is not None:
            self._tell("on_dead_key", partial(self._on_dead_key, key))

    def close(self) -> None:
        """What waits is called, for `PATIENCE_S` at most; a hook that still runs then is left behind."""
        workers, self._workers = self._workers, None
        if workers is not None:
            workers.request_stop()
            if not workers.is_mine() and not workers.join(PATIENCE_S):
                self._gave_up = True
                logger.warning("closing while a hook runs: what it was not told yet is dropped")

    def _tell(self, name: str, call: Callable[[], object]) -> None:
        workers = self._workers
        if workers is None:
            return
        if self._room.acquire(blocking=False):
            workers.submit(partial(self._call, name, call))
        elif not self._dropped:
            self._dropped = True
            logger.bind(hook=name).warning("hooks are too slow: {} calls wait, more are dropped", ROOM)

    def _call(self, name: str, call: Callable[[], object]) -> None:
        try:
            if not self._gave_up:
                call()
        except BaseException as error:  # SystemExit too: only a handler may end the program
            kind = type(error).__name__
            if (name, kind) not in self._said:
                self._said.add((name, kind))
                logger.bind(hook=name).error("the hook raised {}; said once", kind)
        finally:
            self._room.release()


def _check(name: str, hook: object, arguments: str) -> None:
    if hook is None:
        return
    if not callable(hook):
        raise ConfigurationError(f"{name} must be callable {arguments}, not {type(hook).__name__}")
    if inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(getattr(hook, "__call__", None)):  # noqa: B004 - its kind, not its presence
        raise ConfigurationError(f"{name} is a coroutine function, and hooks run in a thread: make it a plain function")
