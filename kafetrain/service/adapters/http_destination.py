"""Webhooks: a POST of the message as it was given; 2xx is success."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson
from yarl import URL

from kafetrain.service.adapters.http_guard import CheckedResolver, HostRules
from kafetrain.service.domain.task import Address
from kafetrain.service.ports.destination import Delivery, DeliveryError, RefusedError
from kafetrain.service.settings import ServiceSettings

__all__ = ["HttpDestination", "signature"]

USER_AGENT = "kafka-retry-service/1.0"
IDLE_CONNECTIONS, IDLE_CONNECTIONS_PER_HOST, IDLE_S = 100, 10, 90.0
READ_AT_MOST = 64 * 1024
"""Of an answer, so that its connection can be used again; a longer one is cut off."""

LONGEST_URL = 2048
KEPT_URLS = 1024
HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")


class HttpDestination:
    """The entry point `http`."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.concurrency = settings.http_concurrency
        self._timeout_s = settings.http_timeout.total_seconds()
        self._secrets = {client: secret.get_secret_value() for client, secret in settings.signing_secrets.items()}
        self._rules = HostRules(settings.allowed_http_hosts, allow_loopback=settings.allows_loopback)
        self._session: aiohttp.ClientSession | None = None
        # The same few URLs come all the time. What raises is not kept.
        self._checked = lru_cache(KEPT_URLS)(self._check)

    def address(self, given: Mapping[str, Any]) -> Address:
        url = given.get("url")
        if not isinstance(url, str) or not url:
            raise ValueError("url is required")
        if unknown := given.keys() - {"url"}:
            raise ValueError(f"{min(unknown)} means nothing for http")
        self._checked(url)
        return {"url": url}

    def _check(self, url: str) -> URL:
        """As it is connected to: what is checked has been read by whoever connects."""
        if len(url) > LONGEST_URL:
            raise ValueError(f"url is longer than {LONGEST_URL} characters")
        if " " in url or "\\" in url:
            raise ValueError("url must not have blanks or backslashes")
        try:
            read = URL(url, encoded=True)  # it is sent as it was given
            host, _ = read.host, read.port
        except ValueError:
            raise ValueError("url is not a URL") from None
        if read.scheme not in ("http", "https") or not host or not url.isascii() or not url.isprintable():
            raise ValueError("url must be http:// or https:// with a host, in ASCII")
        if read.user is not None or read.password is not None:
            raise ValueError("url must not have a user or a password")
        if not HOST.fullmatch(host):
            raise ValueError("url has a host that is neither a name nor an address")
        self._rules.check_host(host)
        return read

    def check_message(self, message_data: str) -> None:
        try:
            orjson.loads(message_data)
        except ValueError:
            raise ValueError("message_data must be JSON for an http destination") from None

    def lane(self, address: Address) -> str:
        parts = urlsplit(str(address["url"]))
        return f"{parts.scheme}://{parts.netloc}".lower()

    async def open(self) -> None:
        connector = _Connector(
            limit=0,  # the lanes bound what runs
            keepalive_timeout=IDLE_S,
            resolver=CheckedResolver(self._rules),
            ttl_dns_cache=10,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            headers={"User-Agent": USER_AGENT, "Content-Type": "application/json"},
            auto_decompress=False,
            trust_env=False,
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def deliver(self, delivery: Delivery) -> int | None:
        assert self._session is not None, "open() comes first"
        body = delivery.message_data.encode()
        headers = {"X-Message-Key": _header_text(delivery.key)}
        if delivery.trace:
            headers["traceparent"] = delivery.trace
        if secret := self._secrets.get(delivery.client_id):
            headers["X-Signature"] = signature(secret, body, int(time.time()))
        try:
            # What was accepted may be forbidden by now.
            url = self._checked(str(delivery.address["url"]))
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                if await answer.content.read(READ_AT_MOST) and not answer.content.at_eof():
                    answer.close()
                status, retry_after = answer.status, answer.headers.get("Retry-After")
        except RefusedError as error:
            raise DeliveryError(str(error)) from None
        except asyncio.TimeoutError:
            raise DeliveryError(f"no answer within {self._timeout_s:g} s", reached=False) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise DeliveryError(_text_of(error), reached=False) from None
        if 200 <= status < 300:
            return status
        raise DeliveryError(f"answered {status}", status=status, retry_after=_seconds(retry_after))


class _Connector(aiohttp.TCPConnector):
    """Bounds the connections that idle; the library can only bound those that work with them."""

    def _release(self, key: Any, protocol: Any, *, should_close: bool = False) -> None:
        idle = sum(len(kept) for kept in self._conns.values())
        if idle >= IDLE_CONNECTIONS or len(self._conns.get(key, ())) >= IDLE_CONNECTIONS_PER_HOST:
            should_close = True
        super()._release(key, protocol, should_close=should_close)


def signature(secret: str, body: bytes, at: int) -> str:
    """The header `X-Signature`: `t=<seconds>,v1=<hex>`, HMAC-SHA256 of `<seconds>.` and the body."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def _header_text(text: str) -> str:
    """As a header may hold it: what is not ASCII is percent-encoded."""
    from urllib.parse import quote

    return text if text.isascii() else quote(text, safe="|:/@!$&'()*+,;=~ ")


def _seconds(retry_after: str | None) -> float | None:
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _text_of(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        why = getattr(error.certificate_error, "verify_message", "")
        return f"no connection: its certificate is not trusted: {why or 'it is for somebody else'}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection: {error.os_error.strerror or type(error.os_error).__name__}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the connection was closed without an answer"
    return f"no answer: {type(error).__name__}"
