"""`POST /tasks` and `POST /tasks/batch`.

The handlers read the request themselves: nothing between socket and store is done twice, and errors are of our shape.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from loguru import logger
from starlette.requests import Request
from starlette.responses import Response

from kafetrain.service.adapters.web.answers import JsonResponse
from kafetrain.service.adapters.web.bodies import Bodies
from kafetrain.service.adapters.web.guard import ApiError, Keys, Role, check_origin
from kafetrain.service.adapters.web.schemas import BatchOut, CreatedOut, ErrorOut, read_batch, read_task
from kafetrain.service.application.acceptance import Acceptance
from kafetrain.service.domain.task import Task
from kafetrain.service.ports.destination import RefusedError
from kafetrain.service.ports.store import Added, StoreError

__all__ = ["task_routes"]

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorOut, "description": "Something is missing, wrong, or not allowed"},
    401: {"model": ErrorOut, "description": "No valid API key"},
    403: {"model": ErrorOut, "description": "Not with this key, or not from that page"},
    413: {"model": ErrorOut, "description": "Too large"},
    503: {"model": ErrorOut, "description": "The store does not answer, or too much is being received"},
}
FAILED: dict[int | str, dict[str, Any]] = {500: {"model": ErrorOut, "description": "Unexpected"}}


def task_routes(acceptance: Acceptance, keys: Keys, bodies: Bodies, max_body: int, max_batch_body: int) -> APIRouter:
    router = APIRouter(tags=["tasks"])

    def task_from(given: Any) -> Task:
        """Raises `ValueError`, `RefusedError`, or `ApiError` where one of a batch is larger than any alone may be."""
        read = read_task(given)
        if len(read.message_data) > max_body:
            raise ApiError(413, f"message_data is larger than {max_body} bytes")
        return read.task(
            *acceptance.check(read.destination_type, read.message_data, read.destination, read.dead_destination)
        )

    async def stored(tasks: list[Task]) -> list[Added]:
        try:
            return await acceptance.accept(tasks)
        except StoreError as error:
            raise ApiError(503, str(error)) from None
        except Exception:
            logger.exception("tasks could not be stored")
            raise ApiError(500, "failed to schedule task") from None

    @router.post(
        "/tasks",
        status_code=201,
        response_model=CreatedOut,
        responses={
            200: {"model": CreatedOut, "description": "It was there already, with the same content"},
            409: {"model": ErrorOut, "description": "Another task has this id"},
            **ERRORS,
            **FAILED,
        },
        openapi_extra=_body("TaskIn"),
    )
    async def create_task(request: Request) -> Response:
        """Schedule a task. With 201 it is stored, and will be delivered or dead-lettered."""
        keys.check(request, Role.SUBMIT)
        check_origin(request)
        async with bodies.of(request, max_body) as body:
            if not body.strip():
                raise ApiError(400, "payload is required")
            try:
                task = task_from(body)
            except (ValueError, RefusedError) as error:
                raise ApiError(400, str(error)) from None
            [added] = await stored([task])
        status, answer = _answer(task.id, added)
        return JsonResponse(answer, status)

    @router.post(
        "/tasks/batch",
        response_model=BatchOut,
        responses={**ERRORS, **FAILED},
        openapi_extra=_body("BatchIn"),
    )
    async def create_tasks(request: Request) -> Response:
        """Schedule up to 1,000 tasks. Each has a status of its own; those with 201 are stored."""
        keys.check(request, Role.SUBMIT)
        check_origin(request)
        async with bodies.of(request, max_batch_body) as body:
            if not body.strip():
                raise ApiError(400, "payload is required")
            try:
                given = read_batch(body)
            except ValueError as error:
                raise ApiError(400, str(error)) from None
            results: list[dict[str, Any]] = []
            good: list[Task] = []
            places: list[int] = []
            for place, one in enumerate(given):
                try:
                    good.append(task_from(one))
                    places.append(place)
                    results.append({})
                except (ValueError, RefusedError, ApiError) as error:
                    results.append(_refused(one, error))
            added = await stored(good) if good else []
        for place, task, one_added in zip(places, good, added, strict=True):
            status, answer = _answer(task.id, one_added)
            results[place] = {"status": status, "task_id": task.id, **answer}
        return JsonResponse({"results": results})

    return router


def _refused(given: Any, error: Exception) -> dict[str, Any]:
    id = given.get("id") if isinstance(given, dict) else None
    status = error.status if isinstance(error, ApiError) else 400
    return {"status": status, "task_id": id if isinstance(id, str) else None, "error": str(error)}


def _answer(id: str, added: Added) -> tuple[int, dict[str, str]]:
    if added is Added.DIFFERENT:
        return 409, {"error": f"another task with the id {id} exists"}
    if added is Added.SAME:
        return 200, {"message": f"Task {id} is scheduled already", "task_id": id}
    return 201, {"message": f"Task {id} scheduled successfully", "task_id": id}


def _body(model: str) -> dict[str, Any]:
    """The body that a handler reads itself, for the description; `create_app` adds the models."""
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{model}"}}},
        }
    }
