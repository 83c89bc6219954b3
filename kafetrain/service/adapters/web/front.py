"""What every request meets first: a bound on its head, and a short way to the two routes that have to be fast.

FastAPI describes `POST /tasks` and `POST /tasks/batch` and could call them. But they read their request themselves, so
all that its own layers would do for them is to take longer than they do.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from itertools import chain

from loguru import logger
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from kafetrain.service.adapters.web.answers import JsonResponse, error_response
from kafetrain.service.adapters.web.guard import ApiError, header
from kafetrain.service.adapters.web.protocol import MAX_HEAD_BYTES

__all__ = ["Endpoint", "Front"]

MAX_URL_BYTES = 8 * 1024
KEPT_HOSTS = 100

Endpoint = Callable[[Request], Awaitable[Response]]


class Front:
    """`shortcuts`: endpoints of POST requests by path; everything else is for `app`.

    `only_local`: refuse requests that name another host than this machine. A service without keys that listens on
    loopback is safe from others, but not from a page in this machine's browser whose name leads here.
    """

    def __init__(self, app: ASGIApp, shortcuts: Mapping[str, Endpoint], *, only_local: bool = False) -> None:
        self._app, self._shortcuts, self._only_local = app, shortcuts, only_local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer: Response
        if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_URL_BYTES:
            answer = JsonResponse({"error": f"URL is longer than {MAX_URL_BYTES} bytes"}, 414)
        elif sum(map(len, chain.from_iterable(scope["headers"]))) > MAX_HEAD_BYTES:
            answer = JsonResponse({"error": f"headers are longer than {MAX_HEAD_BYTES} bytes"}, 431)
        elif self._only_local and not _names_this_machine(header(scope, b"host") or ""):
            answer = JsonResponse(
                {"error": "with ENVIRONMENT=dev the service is called localhost and nothing else"}, 403
            )
        elif scope["method"] == "POST" and (endpoint := self._shortcuts.get(scope["path"])) is not None:
            try:
                answer = await endpoint(Request(scope, receive))
            except ApiError as error:
                answer = error_response(error)
            except asyncio.CancelledError:  # its time to end is over
                answer = JsonResponse({"error": "the service is stopping"}, 503)
            except Exception as error:
                logger.opt(exception=error).error("POST {} failed", scope["path"])
                answer = JsonResponse({"error": "failed to schedule task"}, 500)
        else:
            await self._app(scope, receive, send)
            return
        await answer(scope, receive, send)


@lru_cache(KEPT_HOSTS)
def _names_this_machine(host: str) -> bool:
    name = re.sub(r":[0-9]*$", "", host).strip("[]")
    return name == "localhost" or re.fullmatch(r"[0-9.]+|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*", name) is not None
