"""What is a store's own: the file of the one, the servers of the other, and how either fails."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from kafetrain.service.adapters.redis import RedisStore
from kafetrain.service.adapters.redis.connect import RedisAddress
from kafetrain.service.adapters.sqlite import SqliteStore
from kafetrain.service.ports.store import Added, StoreError
from tests.contract.stores import Clock
from tests.redis_server import RedisServer
from tests.unit.service.tasks import a_task

pytest_plugins = ["tests.contract.stores"]
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# SQLite


async def test_sqlite_keeps_its_tasks(tmp_path: Path, clock: Clock) -> None:
    first = SqliteStore(tmp_path / "new folder" / "tasks.db", clock=clock)
    await first.open()
    await first.add([a_task(now=clock())])
    await first.close()
    with pytest.raises(StoreError):
        await first.add([a_task("t2", now=clock())])
    second = SqliteStore(tmp_path / "new folder" / "tasks.db", clock=clock)
    await second.open()
    assert await second.get("t1") is not None
    await second.close()


async def test_a_sqlite_file_that_may_only_be_read_is_said_so_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tasks.db"
    first = SqliteStore(path)
    await first.open()
    await first.close()

    def connect(store: SqliteStore) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)

    monkeypatch.setattr(SqliteStore, "_connect", connect)
    second = SqliteStore(path)
    with pytest.raises(StoreError, match=f"^sqlite {re.escape(str(path))}: .*it may only be read here"):
        await second.open()
    await second.close()


# Redis


@pytest.mark.parametrize(
    ("refuse", "accept", "said"),
    [
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE"), "read only replica"),
        (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0"), "maxmemory"),
    ],
    ids=["a replica", "full"],
)
async def test_redis_that_takes_no_writes_is_said_so_until_it_does(
    tmp_path: Path, refuse: tuple[str, ...], accept: tuple[str, ...], said: str
) -> None:
    server = RedisServer(tmp_path / "redis", durable=False)
    server.start()
    try:
        store = RedisStore(RedisAddress((server.address,)))
        await store.open()
        assert await store.add([a_task("before")]) == [Added.CREATED]
        with server.client() as client:
            client.execute_command(*refuse)
        with pytest.raises(StoreError, match=said):
            await store.add([a_task("meanwhile")])
        with pytest.raises(StoreError, match=f"^redis connection failed: .*{said}"):
            await store.check()
        with server.client() as client:
            client.execute_command(*accept)
        await store.check()
        assert await store.add([a_task("before"), a_task("meanwhile")]) == [Added.SAME, Added.CREATED]
        await store.close()
    finally:
        server.stop()


async def test_redis_goes_by_its_own_clock(redis_server: RedisServer) -> None:
    store = RedisStore(RedisAddress((redis_server.address,)))
    await store.open()
    with redis_server.client() as client:
        seconds, micros = client.time()
    assert store.now() == pytest.approx(seconds + micros / 1e6, abs=0.2)
    await store.close()


async def test_no_redis_is_said_so() -> None:
    store = RedisStore(RedisAddress(("127.0.0.1:1",), password="geheim"))
    with pytest.raises(StoreError, match=r"^failed to create redis client: ") as caught:
        await store.open()
    assert "geheim" not in str(caught.value)


async def test_redis_that_has_forgotten_the_scripts_is_given_them_again(redis_server: RedisServer) -> None:
    store = RedisStore(RedisAddress((redis_server.address,)))
    await store.open()
    await store.add([a_task("one", now=store.now())])
    with redis_server.client() as client:
        client.script_flush()
    assert await store.add([a_task("two", now=store.now())]) == [Added.CREATED]
    await store.close()


async def test_the_master_that_a_sentinel_names(redis_server: RedisServer, tmp_path: Path) -> None:
    config = tmp_path / "sentinel.conf"
    config.write_text(f"sentinel monitor tasks 127.0.0.1 {redis_server.port} 1\n")
    sentinel = RedisServer(tmp_path, durable=False, config=config)
    sentinel.start()
    try:
        store = RedisStore(RedisAddress((sentinel.address,), sentinel_master="tasks"))
        await store.open()
        assert await store.add([a_task("through a sentinel", now=store.now())]) == [Added.CREATED]
        await store.close()
    finally:
        sentinel.stop()
    with redis_server.client() as client:
        assert client.exists("{kafetrain:tasks}:task:through a sentinel")
