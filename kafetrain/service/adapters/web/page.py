"""The page for people: rendered here, with a little script of its own and nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query
from jinja2 import Environment, FileSystemLoader, select_autoescape
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response

from kafetrain.service.adapters.web.guard import ApiError, Keys, Role, check_origin
from kafetrain.service.adapters.web.schemas import view_of
from kafetrain.service.application.service import BusyError, RetryService
from kafetrain.service.domain.task import State
from kafetrain.service.ports.store import Filter, StoreError

__all__ = ["page_routes"]

HERE = Path(__file__).parent
SHOWN_MINUTES = 60
SHOWN_TASKS = 50
SERIES = ("created", "delivered", "failed", "dead_lettered")
CHART_HEIGHT = 120
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def page_routes(service: RetryService, keys: Keys) -> APIRouter:
    router = APIRouter(include_in_schema=False)
    templates = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=select_autoescape())
    templates.filters["quoted"] = lambda text: quote(text, safe="")

    def render(name: str, status: int = 200, **values: Any) -> Response:
        return Response(templates.get_template(name).render(**values), status, HEADERS, media_type="text/html")

    @router.get("/")
    async def overview(
        request: Request,
        state: str = "",
        client_id: Annotated[str, Query(max_length=200)] = "",
        source: Annotated[str, Query(max_length=200)] = "",
        search: Annotated[str, Query(max_length=200)] = "",
        cursor: Annotated[str, Query(max_length=100)] = "",
    ) -> Response:
        keys.check(request, Role.ADMIN, as_page=True)
        try:
            wanted = Filter(State(state) if state else None, client_id or None, source or None, search or None)
        except ValueError:
            raise ApiError(400, f"there is no state {state[:50]!r}") from None
        minute = int(service.store.now() // 60)
        try:
            counts = await service.store.counts()
            history = await service.store.history(minute - SHOWN_MINUTES + 1)
            page = await service.store.page(wanted, SHOWN_TASKS, cursor or None)
        except ValueError as error:
            raise ApiError(400, str(error)) from None
        except StoreError as error:
            return render("away.html", 503, error=str(error))
        query = {"state": state, "client_id": client_id, "source": source, "search": search}
        query = {name: value for name, value in query.items() if value}
        return render(
            "overview.html",
            counts={one.value: counts.get(one, 0) for one in State},
            bars=_bars(history, minute),
            totals={name: sum(row.get(name, 0) for row in history.values()) for name in SERIES},
            tasks=[view_of(task) for task in page.tasks],
            query=query,
            state_query={one.value: urlencode({**query, "state": one.value}) for one in State},
            all_query=urlencode({name: value for name, value in query.items() if name != "state"}),
            next_query=urlencode({**query, "cursor": page.cursor}) if page.cursor else "",
            is_first=not cursor,
        )

    @router.get("/page/tasks/{id}")
    async def one_task(request: Request, id: str, problem: Annotated[str, Query(max_length=300)] = "") -> Response:
        keys.check(request, Role.ADMIN, as_page=True)
        try:
            found = await service.store.get(id)
        except StoreError as error:
            return render("away.html", 503, error=str(error))
        if found is None:
            return render("missing.html", 404, id=id)
        task = view_of(found.task, full=True, is_claimed=found.is_claimed)
        return render("task.html", task=task, problem=problem)

    @router.post("/page/tasks/{id}/{what}")
    async def act(request: Request, id: str, what: str) -> Response:
        keys.check(request, Role.ADMIN, as_page=True)
        check_origin(request)
        problem = ""
        try:
            if what == "delete":
                await service.store.delete(id)
                return RedirectResponse("/", 303)
            if what == "retry-now":
                await service.retry_now(id)
            elif what == "replay":
                await service.replay(id)
            else:
                raise ApiError(404, "there is no such action")
        except (ValueError, BusyError, StoreError) as error:
            problem = "?" + urlencode({"problem": str(error)[:300]})
        return RedirectResponse(f"/page/tasks/{quote(id, safe='')}{problem}", 303)

    @router.get("/page/{name}")
    async def static(name: str) -> Response:
        if name not in ("page.css", "page.js"):
            raise ApiError(404, "Not Found")
        return FileResponse(HERE / "static" / name, headers={"X-Content-Type-Options": "nosniff"})

    return router


def _bars(history: Any, minute: int) -> list[dict[str, Any]]:
    """One for each minute and series, in the coordinates of the chart."""
    rows = [history.get(minute - SHOWN_MINUTES + 1 + i, {}) for i in range(SHOWN_MINUTES)]
    most = max((row.get(name, 0) for row in rows for name in SERIES), default=0) or 1
    bars = []
    for place, row in enumerate(rows):
        for number, name in enumerate(SERIES):
            count = row.get(name, 0)
            height = max(1.0, CHART_HEIGHT * count / most) if count else 0.0
            minutes_ago = SHOWN_MINUTES - 1 - place
            bars.append(
                {
                    "x": place * 12 + number * 2.5,
                    "y": round(CHART_HEIGHT - height, 2),
                    "height": round(height, 2),
                    "series": name,
                    "title": f"{count} {name.replace('_', ' ')}, {minutes_ago} min ago",
                }
            )
    return bars
