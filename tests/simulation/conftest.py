"""Loops that never wait, and how long hypothesis looks: `--hypothesis-profile=long` for an hour's search."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
from hypothesis import HealthCheck, settings

from kafetrain.retry import loop
from kafetrain.topic_setup import prepare_topics
from kafetrain.tracker import reader

_SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

settings.register_profile(
    "simulation", max_examples=30, stateful_step_count=40, deadline=None, suppress_health_check=_SLOW_IS_FINE
)
settings.register_profile(
    "long", max_examples=20_000, stateful_step_count=100, deadline=None, suppress_health_check=_SLOW_IS_FINE
)


@pytest.fixture(autouse=True, scope="package")
def _loops_never_wait() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "BUSY_WAIT_S", 0.0)
        patch.setattr(loop, "BUSY_WAIT_AT_MOST_S", 0.0)
        patch.setattr(reader, "prepare_topics", partial(prepare_topics, wait=lambda seconds: None))
        yield
