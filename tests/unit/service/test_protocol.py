"""An answer is written in one piece, and what has no body is not kept back."""

from __future__ import annotations

import asyncio

import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn import Config
from uvicorn.server import ServerState

from kafetrain.service.adapters.web.protocol import ServiceProtocol


class Wire(asyncio.Transport):
    """The other end."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.written = asyncio.Event()
        self._is_closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))
        self.written.set()

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._is_closing = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    if scope["path"] == "/parts":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"ab", "more_body": True})
        await send({"type": "http.response.body", "body": b"cd"})
        return
    if scope["path"] == "/asks":
        await receive()
    await Response(b"" if scope["path"] == "/nothing" else b"body", 204 if scope["path"] == "/nothing" else 200)(
        scope, receive, send
    )


@pytest.mark.parametrize(
    ("request_text", "wanted"),
    [
        ("GET / HTTP/1.1\r\n\r\n", [(b"HTTP/1.1 200", b"\r\n\r\nbody")]),
        ("HEAD / HTTP/1.1\r\n\r\n", [(b"HTTP/1.1 200", b"\r\n\r\n")]),
        ("GET /nothing HTTP/1.1\r\n\r\n", [(b"HTTP/1.1 204", b"\r\n\r\n")]),
        ("GET /parts HTTP/1.1\r\n\r\n", [(b"HTTP/1.1 200", b"\r\n\r\nab"), (b"cd", b"cd")]),
        ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", [(b"HTTP/1.1 200", b"\r\n\r\nbody")]),
        ("GET / HTTP/1.1\r\n\r\n" * 2, [(b"HTTP/1.1 200", b"\r\n\r\nbody")] * 2),
        (
            "POST /asks HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
            [(b"HTTP/1.1 100 Continue", b"\r\n\r\n")],
        ),
        ("what is this\r\n\r\n", [(b"HTTP/1.1 400", b"Invalid HTTP request received.")]),
    ],
)
def test_each_write_is_a_whole(request_text: str, wanted: list[tuple[bytes, bytes]]) -> None:
    async def run() -> None:
        config = Config(app, ws="none", lifespan="off", log_config=None)
        config.load()
        wire = Wire()
        protocol = ServiceProtocol(config=config, server_state=ServerState(), app_state={})
        protocol.connection_made(wire)
        protocol.data_received(request_text.encode())
        while len(wire.writes) < len(wanted):
            wire.written.clear()
            await asyncio.wait_for(wire.written.wait(), 60)
        protocol.connection_lost(None)
        await asyncio.gather(*protocol.tasks)
        assert len(wire.writes) == len(wanted)
        for written, (begin, end) in zip(wire.writes, wanted, strict=True):
            assert written.startswith(begin)
            assert written.endswith(end)
        assert wire.is_closing()

    asyncio.run(run())
