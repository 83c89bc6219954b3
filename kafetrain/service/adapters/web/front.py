"""What every request meets first: a bound on its head, and a short way to the two routes that have to be fast.

FastAPI describes `POST /tasks` and `POST /tasks/batch` and could call them. But they read their request themselves, so
all that its own layers would do for them is to take longer than they do.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping

from loguru import logger
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from kafetrain.service.adapters.web.guard import MAX_HEAD_BYTES, ApiError
from kafetrain.service.adapters.web.tasks import json_response

__all__ = ["Endpoint", "Front", "error_response"]

MAX_URL_BYTES = 8 * 1024

Endpoint = Callable[[Request], Awaitable[Response]]


def error_response(error: ApiError) -> Response:
    answer = json_response({"error": error.text}, error.status)
    answer.headers.update(error.headers)
    return answer


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
            answer = json_response({"error": f"URL is longer than {MAX_URL_BYTES} bytes"}, 414)
        elif sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEAD_BYTES:
            answer = json_response({"error": f"headers are longer than {MAX_HEAD_BYTES} bytes"}, 431)
        elif self._only_local and not _names_this_machine(scope):
            answer = json_response(
                {"error": "with ENVIRONMENT=dev the service is called localhost and nothing else"}, 403
            )
        elif scope["method"] == "POST" and (endpoint := self._shortcuts.get(scope["path"])) is not None:
            try:
                answer = await endpoint(Request(scope, receive))
            except ApiError as error:
                answer = error_response(error)
            except asyncio.CancelledError:  # its time to end is over
                answer = json_response({"error": "the service is stopping"}, 503)
            except Exception as error:
                logger.opt(exception=error).error("POST {} failed", scope["path"])
                answer = json_response({"error": "failed to schedule task"}, 500)
        else:
            await self._app(scope, receive, send)
            return
        await answer(scope, receive, send)


def _names_this_machine(scope: Scope) -> bool:
    host = next((value for name, value in scope["headers"] if name == b"host"), b"")
    name = re.sub(rb":\d*$", b"", host).strip(b"[]")
    return name == b"localhost" or re.fullmatch(rb"[0-9.]+|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*", name) is not None
