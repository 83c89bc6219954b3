"""Request bodies in memory: each has a bound, and all of them together."""

from __future__ import annotations

from types import TracebackType

from starlette.requests import Request

from kafetrain.service.adapters.web.guard import ApiError, header

__all__ = ["Bodies"]

TRY_AGAIN_AFTER_S = 1


class Bodies:
    """`room`: bytes that all bodies may take together."""

    def __init__(self, room: int) -> None:
        self._room = room

    def of(self, request: Request, limit: int) -> _Body:
        """`async with` gives the body, which counts until that ends: what is made of it takes memory too.

        Raises `ApiError`: 413 where it is larger than `limit`, as soon as that is known; 503 where there is no room
        for it now; 400 where the caller went away.
        """
        return _Body(self, request, limit)

    def take(self, count: int) -> None:
        if count > self._room:
            raise ApiError(503, "too much is being received at a time", {"Retry-After": str(TRY_AGAIN_AFTER_S)})
        self._room -= count

    def give_back(self, count: int) -> None:
        self._room += count


class _Body:
    def __init__(self, all: Bodies, request: Request, limit: int) -> None:
        self._all, self._request, self._limit, self._taken = all, request, limit, 0

    async def __aenter__(self) -> bytes:
        length = header(self._request.scope, b"content-length") or ""
        if length.isascii() and length.isdigit():
            self._check(int(length))
            self._all.take(int(length))  # is there room for it? What counts is what has come
            self._all.give_back(int(length))
        try:
            return await self._receive()
        except BaseException:
            self._all.give_back(self._taken)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._all.give_back(self._taken)

    async def _receive(self) -> bytes:
        parts: list[bytes] = []
        while True:
            message = await self._request.receive()
            if message["type"] == "http.disconnect":
                raise ApiError(400, "the connection was closed before the payload had come")
            part: bytes = message.get("body", b"")
            self._check(self._taken + len(part))
            self._all.take(len(part))
            self._taken += len(part)
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)

    def _check(self, length: int) -> None:
        if length > self._limit:
            raise ApiError(413, f"payload is larger than {self._limit} bytes")
