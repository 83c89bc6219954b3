"""What nobody thought of is said without its details."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from kafetrain.service.settings import ServiceSettings
from kafetrain.service.wiring import wire
from tests.integration.service.harness import http_task

TASK = http_task("t", "http://127.0.0.1:9/hook")


@pytest.mark.parametrize(("path", "body"), [("/tasks", TASK), ("/tasks/batch", {"tasks": [TASK]})])
def test_an_unexpected_failure_is_500(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    app, service = wire(ServiceSettings(store_url=f"sqlite:///{tmp_path / 'tasks.db'}"))

    async def fail(tasks: object) -> None:
        raise RuntimeError("geheim")

    monkeypatch.setattr(service.acceptance, "accept", fail)

    async def post() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            return await client.post(path, json=body)

    answer = asyncio.run(post())
    assert (answer.status_code, answer.json()) == (500, {"error": "failed to schedule task"})
