"""The application: routes, errors of one shape, and what is told about health."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from loguru import logger
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Scope

from kafetrain.service.adapters.web.admin import admin_routes
from kafetrain.service.adapters.web.answers import JsonResponse, error_response
from kafetrain.service.adapters.web.bodies import Bodies
from kafetrain.service.adapters.web.front import Front
from kafetrain.service.adapters.web.guard import ApiError, Keys
from kafetrain.service.adapters.web.page import page_routes
from kafetrain.service.adapters.web.schemas import BatchIn, HealthOut, TaskIn
from kafetrain.service.adapters.web.tasks import task_routes
from kafetrain.service.application.service import RetryService, UnhealthyError
from kafetrain.service.domain.task import State
from kafetrain.service.ports.store import StoreError
from kafetrain.service.settings import ServiceSettings

__all__ = ["Exposition", "create_app"]

DESCRIPTION = "Tasks over HTTP, delivered to Kafka or webhooks with backoff."


class Exposition(Protocol):
    """Gives the metrics as text."""

    def exposition(self, depth: dict[State, int], in_flight: int) -> bytes: ...


def create_app(service: RetryService, settings: ServiceSettings, telemetry: Exposition) -> ASGIApp:
    """`service` starts and stops with the application."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop(settings.shutdown_timeout.total_seconds())

    app = FastAPIOffline(
        title="kafetrain retry service",
        version="1",
        description=DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
    )
    keys = Keys(settings.submit_keys, settings.admin_keys)
    bodies = Bodies(settings.max_bodies_bytes)
    tasks = task_routes(service.acceptance, keys, bodies, settings.max_body_bytes, settings.max_batch_bytes)
    app.include_router(tasks)
    app.include_router(admin_routes(service, keys))
    app.include_router(page_routes(service, keys))
    _add_health(app, service, telemetry)
    _add_errors(app)
    _describe(app, keys.are_set)
    shortcuts = {route.path: route.endpoint for route in tasks.routes if isinstance(route, APIRoute)}
    return Front(app, shortcuts, only_local=settings.allows_loopback)


def _add_health(app: FastAPI, service: RetryService, telemetry: Exposition) -> None:
    unhealthy: dict[int | str, dict[str, Any]] = {503: {"model": HealthOut, "description": "Something is wrong"}}

    @app.get("/health", tags=["health"], response_model=HealthOut, responses=unhealthy)
    async def health() -> Response:
        """Can tasks be stored, and are they delivered?"""
        try:
            await service.check_health()
        except UnhealthyError as error:
            return JsonResponse({"status": "unhealthy", "error": str(error)}, 503)
        return JsonResponse({"status": "healthy"})

    @app.get("/ready", tags=["health"], response_model=HealthOut, responses=unhealthy)
    async def ready() -> Response:
        """Should requests be sent here?"""
        if not service.is_ready:
            return JsonResponse({"status": "unhealthy", "error": "starting or stopping"}, 503)
        return await health()

    @app.get(
        "/metrics",
        tags=["health"],
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **unhealthy},
    )
    async def metrics() -> Response:
        """For Prometheus."""
        try:
            depth = dict(await service.store.counts())
        except StoreError as error:
            logger.warning("queue depths are missing from the metrics: {}", error)
            depth = {}
        text = telemetry.exposition(depth, service.dispatcher.in_flight)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> Response:
        return error_response(error)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        answer = JsonResponse({"error": str(error.detail)}, error.status_code)
        answer.headers.update(error.headers or {})
        if error.status_code == 405:
            answer.headers["Allow"] = ", ".join(sorted(_methods(app, request.scope)))
        return answer

    @app.exception_handler(RequestValidationError)
    async def wrong_parameter(request: Request, error: RequestValidationError) -> Response:
        texts = [f"{one['loc'][-1]}: {one['msg']}" for one in error.errors()]
        return JsonResponse({"error": "; ".join(texts)}, 400)

    @app.exception_handler(StoreError)
    async def store_error(request: Request, error: StoreError) -> Response:
        return JsonResponse({"error": str(error)}, 503)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        logger.opt(exception=error).error("{} {} failed", request.method, request.scope["path"])
        return JsonResponse({"error": "unexpected failure"}, 500)


def _methods(app: FastAPI, scope: Scope) -> set[str]:
    """All that its path has; the router that answers knows only those of one route."""
    found: set[str] = set()
    for path, operations in app.openapi()["paths"].items():
        wanted, given = path.split("/"), scope["path"].split("/")
        if len(wanted) == len(given) and all(a == b or a.startswith("{") for a, b in zip(wanted, given, strict=True)):
            if wanted == given:
                return {method.upper() for method in operations}
            found |= {method.upper() for method in operations}
    return found


def _describe(app: FastAPI, has_keys: bool) -> None:
    """Add what the handlers read themselves to the description."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        description = generate()
        _, models = models_json_schema(
            [(TaskIn, "validation"), (BatchIn, "validation")], ref_template="#/components/schemas/{model}"
        )
        components = description.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        for name, schema in models["$defs"].items():
            schemas.setdefault(name, schema)
        # Ours answers 400, in another shape.
        for path in description["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        if has_keys:
            for name, path in description["paths"].items():
                if name.startswith("/tasks"):
                    for operation in path.values():
                        operation["security"] = [{"key": []}]
        app.openapi_schema = description
        return description

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way
