"""What commands that are run in the tests' own process leave behind, and what is not measured."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from loguru import logger


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def without_coverage() -> Iterator[None]:
    """For tests that run the same code many thousand times, which are three times as long where each line is noted."""
    coverage: Any = sys.modules.get("coverage")
    measuring = None if coverage is None else coverage.Coverage.current()
    if measuring is not None:
        measuring.stop()
    yield
    if measuring is not None:
        measuring.start()


@pytest.fixture
def log() -> Iterator[list[str]]:
    """What kafetrain logs, from warnings on: message by message."""
    lines: list[str] = []
    logger.enable("kafetrain")
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="WARNING")
    yield lines
    logger.remove(sink)
    logger.disable("kafetrain")
