"""What is being received has a bound, however many send."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from starlette.types import ASGIApp

from kafetrain.errors import ConfigurationError
from kafetrain.service.settings import ServiceSettings
from kafetrain.service.wiring import wire
from tests.integration.service.harness import http_task

ROOM = 10_000
LARGE = orjson.dumps(http_task("large", "http://127.0.0.1:9/hook", base_delay=3600, message_data=f'"{"x" * 6000}"'))


class Call:
    """A request whose body comes piece by piece, when the test says so."""

    def __init__(self, path: str, headers: Mapping[str, str]) -> None:
        self._pieces: asyncio.Queue[tuple[bytes, bool]] = asyncio.Queue()
        self.was_asked = asyncio.Event()
        self.status, self.headers, self.body = 0, dict[str, str](), b""
        self._scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"host", b"localhost"), *((k.encode(), v.encode()) for k, v in headers.items())],
        }

    def give(self, piece: bytes, *, is_last: bool = False) -> None:
        self.was_asked.clear()
        self._pieces.put_nowait((piece, not is_last))

    def start(self, app: ASGIApp) -> asyncio.Task[None]:
        async def receive() -> dict[str, Any]:
            if self._pieces.empty():
                self.was_asked.set()
            body, more = await self._pieces.get()
            return {"type": "http.request", "body": body, "more_body": more}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                self.body += message["body"]

        async def run() -> None:
            await app(self._scope, receive, send)

        return asyncio.create_task(run())


@pytest.mark.parametrize("path", ["/tasks", "/tasks/batch"])
@pytest.mark.parametrize("headers", [{"content-length": str(len(LARGE))}, {}], ids=["with its length", "in chunks"])
def test_what_has_no_room_beside_the_others_is_503_until_there_is_some(
    tmp_path: Path, path: str, headers: Mapping[str, str]
) -> None:
    settings = ServiceSettings(
        store_url=f"sqlite:///{tmp_path / 'tasks.db'}", max_body_bytes=9000, max_batch_bytes=9000, max_bodies_bytes=ROOM
    )
    app, service = wire(settings)

    async def run() -> None:
        await service.start()
        slow = Call("/tasks", {"content-length": str(len(LARGE))})
        slow.give(LARGE[:-1])
        slow_ends = slow.start(app)
        await slow.was_asked.wait()
        second = Call(path, headers)
        second.give(LARGE, is_last=True)
        await second.start(app)
        assert (second.status, second.headers["retry-after"]) == (503, "1")
        assert orjson.loads(second.body) == {"error": "too much is being received at a time"}
        slow.give(LARGE[-1:], is_last=True)
        await slow_ends
        assert slow.status == 201
        for _ in range(3):  # whatever became of them, their room is free again
            third = Call("/tasks", headers)
            third.give(LARGE, is_last=True)
            await third.start(app)
            assert third.status == 200
        await service.stop(1.0)

    asyncio.run(run())


def test_one_body_has_to_fit() -> None:
    with pytest.raises(ConfigurationError, match="MAX_BODIES_BYTES must be at least"):
        ServiceSettings(max_bodies_bytes=ROOM)
