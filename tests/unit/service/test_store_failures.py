"""A store that takes no writes for a while: submitters and probes are told why, and all goes on when it does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from kafetrain.service.adapters.sqlite import SqliteStore
from kafetrain.service.settings import ServiceSettings
from kafetrain.service.wiring import wire
from tests.integration.service.harness import http_task


def a_task(id: str) -> dict[str, Any]:
    return http_task(id, "http://127.0.0.1:9/hook", base_delay=3600, message_data=f'"{"x" * 100_000}"')


@pytest.mark.parametrize(
    ("refuse", "accept", "said", "health"),
    [
        ("PRAGMA query_only = ON", "PRAGMA query_only = OFF", "it may only be read here", 503),
        # Of a disk that is full, a write that needs no more room knows nothing.
        ("PRAGMA max_page_count = 1", "PRAGMA max_page_count = 1000000", "database or disk is full", 200),
    ],
    ids=["read-only", "full"],
)
def test_what_cannot_be_stored_is_503_with_the_reason(
    tmp_path: Path, refuse: str, accept: str, said: str, health: int
) -> None:
    path = tmp_path / "tasks.db"
    app, service = wire(ServiceSettings(store_url=f"sqlite:///{path}"))
    store = service.store
    assert isinstance(store, SqliteStore)

    async def run() -> None:
        await service.start()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            assert (await client.post("/tasks", json=a_task("before"))).status_code == 201
            await store._write(refuse)
            for path, body in (("/tasks", a_task("meanwhile")), ("/tasks/batch", {"tasks": [a_task("meanwhile")]})):
                refused = await client.post(path, json=body)
                assert refused.status_code == 503
                assert said in refused.json()["error"]
            probed = await client.get("/health")
            assert probed.status_code == health
            assert health == 200 or said in probed.json()["error"]
            assert (await client.get("/tasks/before")).status_code == 200
            await store._write(accept)
            assert (await client.get("/health")).status_code == 200
            assert (await client.post("/tasks", json=a_task("meanwhile"))).status_code == 201
        await service.stop(1.0)

    asyncio.run(run())
