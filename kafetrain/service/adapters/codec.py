"""Tasks as the stores keep them: two JSON texts, content and progress.

Content is written once, and two tasks are the same if these texts are. Progress is rewritten after every delivery.
"""

from __future__ import annotations

from typing import Any

import orjson

from kafetrain.service.domain.backoff import Backoff
from kafetrain.service.domain.task import Attempt, State, Task

__all__ = ["content_of", "progress_of", "task_of", "weight_of"]

ORDINARY = 8192
"""Characters of a message that weighs no more than any task does."""


def content_of(task: Task) -> str:
    return orjson.dumps(
        [
            task.id,
            task.source,
            task.destination_type,
            task.destination,
            task.dead_destination,
            task.max_retries,
            task.base_delay,
            task.client_id,
            task.message_data,
            task.is_priority,
            (task.backoff.kind, task.backoff.max_delay, task.backoff.jitter),
        ],
        option=orjson.OPT_SORT_KEYS,
    ).decode()


def progress_of(task: Task) -> str:
    attempts = [(a.number, a.to, a.at, a.seconds, a.status, a.error) for a in task.attempts]
    return orjson.dumps(
        [task.state.value, task.attempt, task.dead_attempt, task.created_at, task.due_at, task.trace, attempts]
    ).decode()


def weight_of(task: Task) -> int:
    """For a `Batcher`: one with a long message counts as several."""
    return 1 + len(task.message_data) // ORDINARY


def task_of(content: str | bytes, progress: str | bytes) -> Task:
    parts: Any = orjson.loads(content)
    done: Any = orjson.loads(progress)
    state, attempt, dead_attempt, created_at, due_at, trace, attempts = done
    return Task(
        id=parts[0],
        source=parts[1],
        destination_type=parts[2],
        destination=parts[3],
        dead_destination=parts[4],
        max_retries=parts[5],
        base_delay=parts[6],
        client_id=parts[7],
        message_data=parts[8],
        is_priority=parts[9],
        backoff=Backoff(*parts[10]),
        state=State(state),
        attempt=attempt,
        dead_attempt=dead_attempt,
        created_at=created_at,
        due_at=due_at,
        trace=trace,
        attempts=tuple(Attempt(*one) for one in attempts),
    )
