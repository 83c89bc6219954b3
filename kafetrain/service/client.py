"""A client of the retry service."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

from kafetrain.errors import KafetrainError

__all__ = ["Client", "ServiceError", "Submitted"]

FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 2.0


class ServiceError(KafetrainError):
    """The service refused, or could not be reached. `status` is 0 where there was no answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of a task. `status` 201: stored; 200: it was there already; else `error` says why not."""

    task_id: str | None
    status: int
    error: str | None = None

    @property
    def is_stored(self) -> bool:
        return self.status in (200, 201)


class Client:
    """Any thread; a context manager. Every call raises `ServiceError`.

    `tries`: how often a call is made that got no answer, or 503. That is safe for submissions too: the same task again
    is not a second one.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        *,
        api_key: str | None = None,
        timeout: timedelta = timedelta(seconds=10),
        tries: int = 4,
    ) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._tries = tries
        try:
            self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout.total_seconds())
        except (httpx.InvalidURL, UnicodeEncodeError) as error:
            raise ServiceError(0, f"{type(error).__name__}: the URL or the API key cannot be used") from None
        self._url = url

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def submit(self, task: Mapping[str, Any]) -> Submitted:
        """Schedule a task, given as the fields of `POST /tasks`. On return the service has stored it."""
        answer = self._call("POST", "/tasks", json=dict(task))
        return Submitted(answer.json()["task_id"], answer.status_code)

    def submit_many(self, tasks: Sequence[Mapping[str, Any]]) -> list[Submitted]:
        """Up to 1,000. Each has a result of its own, in their order; look at `is_stored`."""
        answer = self._call("POST", "/tasks/batch", json={"tasks": [dict(task) for task in tasks]})
        return [Submitted(one["task_id"], one["status"], one.get("error")) for one in answer.json()["results"]]

    def get(self, id: str) -> dict[str, Any]:
        """A task with its message and its deliveries so far."""
        found: dict[str, Any] = self._call("GET", _path(id)).json()
        return found

    def tasks(
        self,
        *,
        state: str | None = None,
        client_id: str | None = None,
        source: str | None = None,
        search: str | None = None,
    ) -> Iterator[dict[str, Any]]:
        """All tasks that match, page by page, without their messages."""
        given = {"state": state, "client_id": client_id, "source": source, "search": search}
        query = {name: value for name, value in given.items() if value}
        while True:
            page = self._call("GET", "/tasks", params={**query, "limit": "200"}).json()
            yield from page["tasks"]
            if page["cursor"] is None:
                return
            query["cursor"] = page["cursor"]

    def retry_now(self, id: str) -> dict[str, Any]:
        """Make its next delivery due."""
        task: dict[str, Any] = self._call("POST", f"{_path(id)}/retry-now").json()
        return task

    def replay(self, id: str) -> dict[str, Any]:
        """Give a dead task all its retries again, the first one now."""
        task: dict[str, Any] = self._call("POST", f"{_path(id)}/replay").json()
        return task

    def delete(self, id: str) -> None:
        self._call("DELETE", _path(id))

    def check_health(self) -> None:
        """Raises `ServiceError` where the service is not healthy."""
        self._call("GET", "/health")

    def _call(self, method: str, path: str, **more: Any) -> httpx.Response:
        wait_s = FIRST_WAIT_S
        for left in reversed(range(self._tries)):
            try:
                answer = self._http.request(method, path, **more)
            except httpx.HTTPError as error:
                failure = ServiceError(0, f"no answer from {self._url}: {type(error).__name__}. Is it running there?")
            else:
                if answer.is_success:
                    return answer
                failure = ServiceError(answer.status_code, _text_of(answer))
            if failure.status not in (0, 503) or not left:
                raise failure
            time.sleep(wait_s)
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)
        raise ServiceError(0, "tries must be at least 1")


def _path(id: str) -> str:
    return f"/tasks/{quote(id, safe='')}"


def _text_of(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"the service answered {answer.status_code}"
