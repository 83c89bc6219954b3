"""Who may call."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from enum import IntEnum
from urllib.parse import urlsplit

from pydantic import SecretStr
from starlette.requests import Request
from starlette.types import Scope

__all__ = ["ApiError", "Keys", "Role", "check_origin", "header"]


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


def header(scope: Scope, name: bytes) -> str | None:
    """The first of this name, which is in lower case. `Request.headers` would take ten times as long."""
    for one, value in scope["headers"]:
        if one == name:
            found: bytes = value
            return found.decode("latin-1")
    return None


def _given_key(request: Request) -> str | None:
    if key := header(request.scope, b"x-api-key"):
        return key
    scheme, _, value = (header(request.scope, b"authorization") or "").partition(" ")
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
    if header(request.scope, b"sec-fetch-site") not in (None, "same-origin", "none"):
        raise ApiError(403, "requests from pages of other sites are refused")
    origin = header(request.scope, b"origin")
    if origin is not None and urlsplit(origin).netloc != header(request.scope, b"host"):
        raise ApiError(403, "requests from pages of other sites are refused")
