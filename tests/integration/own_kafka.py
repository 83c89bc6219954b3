"""Where to start Apache Kafka from, for tests that need one made for them: with more nodes, listeners, access rules."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pytest

from kafetrain.testing import BrokerNotReadyError
from kafetrain.testing.distribution import cache_folder, fetch_jars, find_java

__all__ = ["Distribution", "distribution"]


class Distribution(NamedTuple):
    """The first arguments of `ApacheKafkaBroker` and `ApacheKafkaCluster`."""

    java: str
    libs: Path


def distribution() -> Distribution:
    """Skips the test where there is no Java, or no Maven to fetch Kafka with; on a CI server that is an error."""
    try:
        return Distribution(find_java(os.environ), fetch_jars(cache_folder(os.environ)))
    except BrokerNotReadyError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
