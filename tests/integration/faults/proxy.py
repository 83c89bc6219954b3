"""A network between one instance and its broker, which a test takes away and gives back."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from typing import Literal

from kafetrain.testing.node import free_ports

__all__ = ["Fault", "Proxy"]

Fault = Literal["stall", "cut", "reset"]

CHUNK = 1 << 16
LOOK_EVERY_S = 0.1
ABORT = struct.pack("ii", 1, 0)
"""For SO_LINGER: close() sends a reset."""


class Proxy:
    """Forwards from `address` to `target`, on a thread of its own. Set `target` before anybody connects.

    `break_off` starts a fault, `mend` ends it. "stall": connections stay, also new ones are accepted, and nothing gets
    through. "cut": they are closed, new ones are refused. "reset": they are reset, new ones as soon as they are there.
    """

    def __init__(self) -> None:
        self.target = ""
        self._fault: Fault | None = None
        self._server = self._listen(("127.0.0.1", free_ports(1)[0]))
        self._place = self._server.getsockname()
        self._changed = threading.Event()  # a fault begins or ends, which the thread has to see to
        self._is_closed = False
        self._peers: dict[socket.socket, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._server, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        host, port = self._place
        return f"{host}:{port}"

    def break_off(self, fault: Fault) -> None:
        self._fault = fault
        self._changed.set()

    def mend(self) -> None:
        """What was stalled goes on; what was cut has to connect again."""
        self._fault = None
        self._changed.set()

    def close(self) -> None:
        self._is_closed = True
        self._thread.join()

    @staticmethod
    def _listen(place: tuple[str, int]) -> socket.socket:
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(place)
        server.listen()
        return server

    # On the thread

    def _run(self) -> None:
        while not self._is_closed:
            if self._changed.is_set():
                self._changed.clear()
                self._apply(self._fault)
            for key, _ in self._selector.select(LOOK_EVERY_S):
                one = key.fileobj
                assert isinstance(one, socket.socket)
                if one is self._server:
                    self._accept()
                elif one in self._peers:  # else its other end went a moment ago
                    self._forward(one, self._peers[one])
        self._drop_all(reset=False)
        self._selector.close()
        self._server.close()

    def _apply(self, fault: Fault | None) -> None:
        listens = self._server.fileno() >= 0
        if fault == "cut" and listens:
            self._selector.unregister(self._server)
            self._server.close()
        if fault != "cut" and not listens:
            self._server = self._listen(self._place)
            self._selector.register(self._server, selectors.EVENT_READ)
        if fault in ("cut", "reset"):
            self._drop_all(reset=fault == "reset")
        for one in self._peers:
            with contextlib.suppress(KeyError):
                self._selector.unregister(one)
            if fault != "stall":
                self._selector.register(one, selectors.EVENT_READ)

    def _accept(self) -> None:
        client, _ = self._server.accept()
        host, port = self.target.split(":")
        if self._fault == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
            client.close()
            return
        try:
            broker = socket.create_connection((host, int(port)))
        except OSError:
            client.close()
            return
        for one, other in ((client, broker), (broker, client)):
            self._peers[one] = other
            if self._fault != "stall":
                self._selector.register(one, selectors.EVENT_READ)

    def _forward(self, one: socket.socket, other: socket.socket) -> None:
        try:
            data = one.recv(CHUNK)
            other.sendall(data)
        except OSError:
            data = b""
        if not data:
            self._drop(one, other)

    def _drop_all(self, *, reset: bool) -> None:
        while self._peers:
            one = next(iter(self._peers))
            if reset:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
                self._peers[one].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
            self._drop(one, self._peers[one])

    def _drop(self, *both: socket.socket) -> None:
        for one in both:
            self._peers.pop(one, None)
            with contextlib.suppress(KeyError):
                self._selector.unregister(one)
            one.close()
