"""Loops of kafetrain that never wait for a time, and threads of its own that a test steps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import timedelta
from functools import partialmethod
from typing import Any
from unittest import mock

from kafetrain.futures import LightFuture
from kafetrain.retry import loop
from kafetrain.topic_setup import PreparedTopics, prepare_topics
from kafetrain.tracker import reader, transactor
from tests.simulation.stepped import ImpatientClock, PausingSequencer, SteppedThread, result_of

__all__ = ["loops_never_wait"]


@contextlib.contextmanager
def loops_never_wait() -> Iterator[None]:
    """For as long as simulated instances are stepped."""
    with contextlib.ExitStack() as patches:
        for target, name, value in (
            (loop, "BUSY_WAIT_S", 0.0),
            (loop, "BUSY_WAIT_AT_MOST_S", 0.0),
            (reader, "prepare_topics", _prepare_at_once),
            (Future, "result", result_of),
            (LightFuture, "result", partialmethod(result_of, wait=LightFuture.result)),
            (transactor, "POLL", timedelta(0)),
            (transactor, "LoopThread", SteppedThread),
            (transactor, "Sequencer", PausingSequencer),
        ):
            patches.enter_context(mock.patch.object(target, name, value))
        yield


def _prepare_at_once(*args: Any, clock: Any) -> PreparedTopics:
    """Or not at all: it would wait half a minute for brokers that are gone, and everybody with it."""
    return prepare_topics(*args, clock=ImpatientClock(), wait=lambda seconds: None)
