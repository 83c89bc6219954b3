"""The service as its users have it: a process, real webhooks, HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from aiohttp import web

from tests.redis_server import free_port
from tests.waiting import wait_for

__all__ = ["ROOT", "Answer", "Hit", "Service", "Webhook", "http_task"]

ROOT = Path(__file__).parents[3]
OWN = ("REDIS_", "KAFKA_", "HTTP_", "ALLOWED_", "STORE_", "SUBMIT_", "ADMIN_", "SIGNING_", "ENVIRONMENT", "LOG_LEVEL")


class Service:
    """`kafetrain serve`, with its files in `folder`. Settings are environment variables."""

    def __init__(self, folder: Path, **settings: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port = folder, free_port()
        self.settings = {"HTTP_PORT": str(self.port), **settings}
        self.log = folder / f"service-{self.port}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.http = httpx.Client(base_url=self.url, timeout=120)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def spawn(self) -> subprocess.Popen[bytes]:
        env = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kafetrain", "serve"],
                cwd=self.folder,
                env={**env, "PYTHONPATH": str(ROOT), **self.settings},
                stdout=log,
                stderr=log,
            )
        return self.process

    def start(self) -> Service:
        process = self.spawn()

        def check() -> None:
            if process.poll() is not None:
                raise AssertionError(f"the service has ended with {process.returncode}: {self.log_text()[-2000:]}")

        wait_for("the service is ready", self._is_ready, check=check)
        return self

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self, timeout: float = 60.0) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(timeout)

    def close(self) -> None:
        self.http.close()
        if self.process is not None and self.process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill()

    def log_text(self) -> str:
        return self.log.read_text()

    def create(self, task: Mapping[str, Any]) -> httpx.Response:
        return self.http.post("/tasks", json=task)

    def create_all(self, tasks: list[dict[str, Any]]) -> None:
        for start in range(0, len(tasks), 500):
            answer = self.http.post("/tasks/batch", json={"tasks": tasks[start : start + 500]})
            assert answer.status_code == 200, answer.text
            assert {one["status"] for one in answer.json()["results"]} <= {200, 201}, answer.text

    def task(self, id: str) -> dict[str, Any]:
        answer = self.http.get(f"/tasks/{id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def wait_for_state(self, id: str, state: str, timeout: float = 60.0) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            task = self.task(id)
            return task if task["state"] == state else None

        return wait_for(f"{id} is {state}", look, timeout)

    def _is_ready(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return self.http.get("/ready").status_code == 200
        return False


@dataclass(frozen=True)
class Hit:
    """One request that a webhook got."""

    at: float
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def key(self) -> str:
        return self.headers["X-Message-Key"]


@dataclass(frozen=True)
class Answer:
    status: int = 200
    headers: Mapping[str, str] | None = None
    hold: threading.Event | None = None
    """The answer comes when this is set."""
    body: bytes = b"ok"


class Webhook:
    """A real HTTP server in a thread, or an HTTPS one. `answer` decides by the request what it says."""

    def __init__(self, answer: Callable[[Hit], Answer] | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.hits: list[Hit] = []
        self.answer: Callable[[Hit], Answer] = answer or (lambda hit: Answer())
        self.port, self._tls = 0, tls
        self._started = threading.Event()
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="webhook", daemon=True)
        self._thread.start()
        assert self._started.wait(10)

    def url(self, path: str = "/hook") -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}{path}"

    def delivered(self, path: str | None = None) -> list[str]:
        return [hit.key for hit in list(self.hits) if path in (None, hit.path)]

    def close(self) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = web.Server(self._handle)
        runner = web.ServerRunner(server)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, shutdown_timeout=0.1, backlog=1024, ssl_context=self._tls)
        await site.start()
        self.port = runner.addresses[0][1]
        self.open_connections = lambda: len(server.connections)
        self._started.set()
        await self._stop.wait()
        await runner.cleanup()

    open_connections: Callable[[], int]

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        hit = Hit(time.time(), request.path_qs, request.headers.copy(), await request.read())
        self.hits.append(hit)
        answer = self.answer(hit)
        if answer.hold is not None:
            await asyncio.get_running_loop().run_in_executor(None, answer.hold.wait, 60)
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)


def http_task(id: str, url: str, **changes: Any) -> dict[str, Any]:
    return {
        "id": id,
        "source": "shop",
        "destination": {"url": url},
        "dead_destination": {"url": url.rsplit("/", 1)[0] + "/dead"},
        "max_retries": 5,
        "base_delay": 0,
        "client_id": "c1",
        "message_data": json.dumps({"id": id}),
        "destination_type": "http",
        **changes,
    }
