"""Who may call, and how much they may send."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from enum import IntEnum
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr
from starlette.requests import ClientDisconnect, Request
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["MAX_HEAD_BYTES", "ApiError", "BoundedHttpProtocol", "Keys", "Role", "body_of", "check_origin"]

MAX_HEAD_BYTES = 32 * 1024
"""Request line and headers."""


class ApiError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.status, self.text, self.headers = status, text, headers or {}


class Role(IntEnum):
    """An admin may do what a submitter may."""

    SUBMIT = 1
    ADMIN = 2


class Keys:
    """API keys. Without any, everybody may do everything."""

    def __init__(self, submit: Sequence[SecretStr], admin: Sequence[SecretStr]) -> None:
        roles = [(key, Role.SUBMIT) for key in submit] + [(key, Role.ADMIN) for key in admin]
        self._digests = [(_digest(key.get_secret_value()), role) for key, role in roles]

    @property
    def are_set(self) -> bool:
        return bool(self._digests)

    def check(self, request: Request, role: Role, *, as_page: bool = False) -> None:
        """Raises `ApiError` 401 or 403. `as_page`: a browser then asks for a password, which is the key."""
        if not self._digests:
            return
        given = _given_key(request)
        found = 0
        if given is not None:
            digest = _digest(given)
            # All of them, whichever matches: the time tells nothing.
            for known, its_role in self._digests:
                if hmac.compare_digest(known, digest):
                    found = max(found, its_role)
        if not found:
            scheme = 'Basic realm="kafetrain", charset="UTF-8"' if as_page else "Bearer"
            raise ApiError(401, "an API key is required: Authorization: Bearer KEY", {"WWW-Authenticate": scheme})
        if found < role:
            raise ApiError(403, "this API key may only submit tasks")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _given_key(request: Request) -> str | None:
    if key := request.headers.get("x-api-key"):
        return key
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return None
    return None


def check_origin(request: Request) -> None:
    """A page of another site must not act here with the browser's key, or on a service that listens on loopback."""
    if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        raise ApiError(403, "requests from pages of other sites are refused")
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise ApiError(403, "requests from pages of other sites are refused")


async def body_of(request: Request, limit: int) -> bytes:
    """Raises `ApiError` 413 as soon as it is known, and 400 where the caller went away."""
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length) > limit:
        raise ApiError(413, f"payload is larger than {limit} bytes")
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise ApiError(413, f"payload is larger than {limit} bytes")
    except ClientDisconnect:
        raise ApiError(400, "the connection was closed before the payload had come") from None
    return bytes(body)


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's, with a bound on the head of a request: its parser keeps what it is sent."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_in_head, self._head_bytes = True, 0

    def data_received(self, data: bytes) -> None:
        if self._is_in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._is_in_head and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.transport.write(
                b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            )
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._is_in_head, self._head_bytes = True, 0
