"""Looking at tasks, and doing something about them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from kafetrain.service.adapters.web.answers import JsonResponse
from kafetrain.service.adapters.web.guard import ApiError, Keys, Role, check_origin
from kafetrain.service.adapters.web.schemas import ErrorOut, TaskListOut, TaskOut, view_of
from kafetrain.service.application.service import BusyError, RetryService
from kafetrain.service.domain.task import State
from kafetrain.service.ports.store import Filter

__all__ = ["admin_routes"]

ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": ErrorOut, "description": "No valid API key"},
    403: {"model": ErrorOut, "description": "Not with this key, or not from that page"},
    503: {"model": ErrorOut, "description": "The store does not answer"},
}
MISSING: dict[int | str, dict[str, Any]] = {404: {"model": ErrorOut, "description": "There is no such task"}}
CONFLICT: dict[int | str, dict[str, Any]] = {
    409: {"model": ErrorOut, "description": "Not in its state, or it is being delivered just now"}
}

States = Literal["scheduled", "delivered", "dead_lettered", "dead"]


def admin_routes(service: RetryService, keys: Keys) -> APIRouter:
    router = APIRouter(tags=["admin"])

    def check(request: Request) -> None:
        keys.check(request, Role.ADMIN)
        check_origin(request)

    @router.get(
        "/tasks",
        response_model=TaskListOut,
        responses={400: {"model": ErrorOut, "description": "A parameter is wrong"}, **ERRORS},
    )
    async def list_tasks(
        request: Request,
        state: States | None = None,
        client_id: Annotated[str | None, Query(max_length=200)] = None,
        source: Annotated[str | None, Query(max_length=200)] = None,
        search: Annotated[str | None, Query(max_length=200, description="A piece of the id")] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        cursor: Annotated[str | None, Query(max_length=100)] = None,
    ) -> Response:
        """Tasks that match, newest first in each state. A page may have fewer than `limit` while there is a cursor."""
        check(request)
        chosen = Filter(State(state) if state else None, client_id or None, source or None, search or None)
        try:
            page = await service.store.page(chosen, limit, cursor)
        except ValueError as error:
            raise ApiError(400, str(error)) from None
        return JsonResponse({"tasks": [view_of(task) for task in page.tasks], "cursor": page.cursor})

    @router.get("/tasks/{id}", response_model=TaskOut, responses={**MISSING, **ERRORS})
    async def get_task(request: Request, id: str) -> Response:
        """One task, with its message and its deliveries so far."""
        check(request)
        found = await service.store.get(id)
        if found is None:
            raise _missing(id)
        return JsonResponse(view_of(found.task, full=True, is_claimed=found.is_claimed))

    @router.post("/tasks/{id}/retry-now", response_model=TaskOut, responses={**MISSING, **CONFLICT, **ERRORS})
    async def retry_now(request: Request, id: str) -> Response:
        """Make its next delivery due."""
        check(request)
        return await _changed(service, "retry-now", id)

    @router.post("/tasks/{id}/replay", response_model=TaskOut, responses={**MISSING, **CONFLICT, **ERRORS})
    async def replay(request: Request, id: str) -> Response:
        """Give a dead task all its retries again, the first one now."""
        check(request)
        return await _changed(service, "replay", id)

    @router.delete("/tasks/{id}", status_code=204, response_model=None, responses={**MISSING, **ERRORS})
    async def delete_task(request: Request, id: str) -> Response:
        """Forget it. A delivery that is under way is not called back."""
        check(request)
        if not await service.store.delete(id):
            raise _missing(id)
        return Response(status_code=204)

    return router


async def _changed(service: RetryService, what: str, id: str) -> Response:
    try:
        task = await (service.replay(id) if what == "replay" else service.retry_now(id))
    except (ValueError, BusyError) as error:
        raise ApiError(409, str(error)) from None
    if task is None:
        raise _missing(id)
    return JsonResponse(view_of(task, full=True))


def _missing(id: str) -> ApiError:
    return ApiError(404, f"there is no task {id[:200]!r}")
