"""What stores of tasks are tested with.

A pytest plugin, for its fixtures: `pytest_plugins = ["tests.contract.stores"]`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.redis_server import RedisServer


class Clock:
    def __init__(self) -> None:
        self.time = 1_700_000_000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"), durable=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A cluster of one node: it refuses what is in several slots."""
    server = RedisServer(tmp_path_factory.mktemp("cluster"), "--cluster-enabled", "yes", durable=False)
    server.start()
    with server.client() as client:
        client.execute_command("CLUSTER ADDSLOTS", *range(16384))
    yield server
    server.stop()
