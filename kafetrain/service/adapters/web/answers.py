"""Answers in JSON, and the errors that become one."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response

from kafetrain.service.adapters.web.guard import ApiError

__all__ = ["JsonResponse", "error_response"]

JSON = (b"content-type", b"application/json")


class JsonResponse(Response):
    """Its parent looks at everything that it could have been given; that took as long as reading a task."""

    def __init__(self, content: Any, status: int = 200) -> None:
        self.status_code, self.background = status, None
        self.body = orjson.dumps(content)
        self.raw_headers = [JSON, (b"content-length", str(len(self.body)).encode())]


def error_response(error: ApiError) -> Response:
    answer = JsonResponse({"error": error.text}, error.status)
    answer.headers.update(error.headers)
    return answer
