"""A cluster whose auxiliary topics are as they should be, and what preparing topics on one says."""

from __future__ import annotations

import itertools
import shlex
from typing import Any

import pytest

from kafetrain.errors import ConfigurationError
from kafetrain.settings import Settings
from kafetrain.topic_setup import PreparedTopics, prepare_topics
from tests.unit.fakes import FakeAdmin, FakeClock

AUXILIARY = ["retry-orders", "redirect-orders", "dlq-orders"]


KEEP_ALL = {"retention.ms": "-1", "retention.bytes": "-1"}


COMPACTED = {
    "cleanup.policy": "compact,delete",
    "min.compaction.lag.ms": "600000",
    "delete.retention.ms": "86400000",
    **KEEP_ALL,
}


ROOMY = {"max.message.bytes": str(1_048_588 + 65_536), **KEEP_ALL}


def settings(**values: Any) -> Settings:
    return Settings(**{"group_id": "billing", "bootstrap_servers": "broker:9092", "_env_file": None, **values})


def good_cluster(partitions: int = 3, **source: Any) -> FakeAdmin:
    """A source topic whose auxiliary topics are as they should be."""
    admin = FakeAdmin()
    admin.add("orders", partitions, **source)
    admin.add("retry-orders", partitions, ROOMY)
    admin.add("redirect-orders", partitions, COMPACTED)
    admin.add("dlq-orders", partitions, ROOMY)
    return admin


def prepare(admin: FakeAdmin, clock: FakeClock | None = None, **values: Any) -> PreparedTopics:
    clock = clock or FakeClock()
    return prepare_topics(admin, settings(**values), "orders", clock=clock, wait=clock.wait)


def refusal(admin: FakeAdmin, **values: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        prepare(admin, **values)
    return str(caught.value)


def commands(text: str) -> list[list[str]]:
    """The commands at the end of an error, as a shell would split them."""
    return [shlex.split(line) for line in text.splitlines() if line.startswith("  kafka-")]


def options_of(command: list[str]) -> set[str]:
    return {value for flag, value in itertools.pairwise(command) if flag == "--config"}
