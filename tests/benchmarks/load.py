"""Load on a server over HTTP that costs little itself: requests are prepared, and of an answer little is read.

A program on the same two cores that takes as much CPU as the server measures itself.
"""

from __future__ import annotations

import os
import re
import select
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CONNECTIONS", "Load", "cpu_s", "post", "post_all"]

CONNECTIONS = 8
GOOD = (b"200", b"201")
LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
LARGEST_ANSWER = 1_000_000
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Load:
    """`taken`: seconds that each request took. `seconds`: all of them together."""

    taken: list[float]
    seconds: float


def post(path: str, body: bytes) -> bytes:
    """A request as it is sent."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def post_all(port: int, requests: Iterable[bytes]) -> Load:
    """Over `CONNECTIONS` connections, each with one request at a time. Raises `RuntimeError` unless all go well."""
    left, taken = iter(requests), []
    poll = select.epoll()
    connections: dict[int, _Connection] = {}
    begun = time.perf_counter()
    for _ in range(CONNECTIONS):
        connection = _Connection(port)
        if (request := next(left, None)) is None:
            break
        connections[connection.socket.fileno()] = connection
        poll.register(connection.socket.fileno(), select.EPOLLIN)
        connection.send(request)
    busy = len(connections)
    while busy:
        for number, _ in poll.poll():
            connection = connections[number]
            if not connection.receive():
                continue
            taken.append(time.perf_counter() - connection.sent_at)
            if (request := next(left, None)) is None:
                busy -= 1
            else:
                connection.send(request)
    seconds = time.perf_counter() - begun
    poll.close()
    for connection in connections.values():
        connection.socket.close()
    return Load(taken, seconds)


class _Connection:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent_at = 0.0
        self._buffer = memoryview(bytearray(LARGEST_ANSWER))
        self._received = 0

    def send(self, request: bytes) -> None:
        self.sent_at = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> bool:
        """Is the answer there in full?"""
        count = self.socket.recv_into(self._buffer[self._received :])
        if not count:
            raise RuntimeError("the server has closed a connection, or its answer is too long")
        self._received += count
        answer = bytes(self._buffer[: self._received])
        end, length = answer.find(b"\r\n\r\n"), LENGTH.search(answer)
        if end < 0 or length is None or len(answer) < end + 4 + int(length[1]):
            return False
        if answer[9:12] not in GOOD:
            raise RuntimeError(answer.decode())
        self._received = 0
        return True


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has taken, of all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS
