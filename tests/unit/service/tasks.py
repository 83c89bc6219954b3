"""Tasks for tests: all of one shape, except for what a test names."""

from __future__ import annotations

from typing import Any

from kafetrain.service.domain.task import Task

__all__ = ["a_task"]


def a_task(id: str = "t1", *, now: float | None = None, **changes: Any) -> Task:
    """Accepted at `now`, if that is given."""
    content: dict[str, Any] = {
        "source": "shop",
        "destination_type": "http",
        "destination": {"url": "http://a.example/hook"},
        "dead_destination": {"url": "http://a.example/dead"},
        "max_retries": 5,
        "base_delay": 10.0,
        "client_id": "c1",
        "message_data": '{"a": 1}',
    }
    task = Task(id=id, **(content | changes))
    if now is not None:
        task.accept(now)
    return task
