"""What goes in and out of the API, and the sentences that say what is wrong with what came in."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated, Any, get_args

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from kafetrain.service.domain.backoff import LONGEST_DELAY_S, Backoff, BackoffKind
from kafetrain.service.domain.task import Address, Task

__all__ = [
    "MAX_BATCH",
    "BackoffIn",
    "BatchIn",
    "BatchOut",
    "CreatedOut",
    "ErrorOut",
    "HealthOut",
    "TaskIn",
    "TaskListOut",
    "TaskOut",
    "read_batch",
    "read_task",
    "view_of",
]

MAX_BATCH = 1000
PLAIN: dict[str, Backoff] = {kind: Backoff(kind) for kind in get_args(BackoffKind)}

# Part of a URL, and of a line in a log: so nothing that either has another meaning for.
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
Id = Annotated[
    str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f/\\.][^\x00-\x1f\x7f-\x9f/\\]*$")
]
Place = Annotated[
    dict[str, str | int],
    Field(description="kafka: `host`, `port` (number or text), `topic`; http: `url`", min_length=1, max_length=20),
]


class BackoffIn(BaseModel):
    """How delays grow. `jitter` 0.1 spreads each by 10 % either way."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: BackoffKind = "exponential"
    max_delay: float | None = Field(default=None, ge=0, le=LONGEST_DELAY_S, allow_inf_nan=False)
    jitter: float = Field(default=0.0, ge=0, le=1, allow_inf_nan=False)


class TaskIn(BaseModel):
    """A message that is to be delivered after `base_delay` seconds, and again with growing delays until it is taken."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: Id
    source: Name
    destination: Place
    dead_destination: Place
    max_retries: int = Field(ge=0, le=100_000)
    base_delay: float = Field(ge=0, le=LONGEST_DELAY_S, allow_inf_nan=False)
    client_id: Name
    is_priority: bool = False
    message_data: str
    destination_type: str = Field(description="`kafka`, `http`, or another kind that is installed")
    backoff: BackoffKind | BackoffIn = Field(default="exponential", union_mode="left_to_right")

    def task(self, destination: Address, dead_destination: Address) -> Task:
        chosen = self.backoff
        return Task(
            id=self.id,
            source=self.source,
            destination_type=self.destination_type,
            destination=destination,
            dead_destination=dead_destination,
            max_retries=self.max_retries,
            base_delay=float(self.base_delay),
            client_id=self.client_id,
            message_data=self.message_data,
            is_priority=self.is_priority,
            backoff=PLAIN[chosen] if isinstance(chosen, str) else Backoff(chosen.type, chosen.max_delay, chosen.jitter),
        )


class BatchIn(BaseModel):
    """Up to 1,000 tasks, each as for `POST /tasks`. One that is wrong has a status of its own, and spoils no other."""

    model_config = ConfigDict(extra="forbid", strict=True)

    tasks: list[Any] = Field(
        min_length=1, max_length=MAX_BATCH, json_schema_extra={"items": {"description": "A `TaskIn`."}}
    )


class CreatedOut(BaseModel):
    message: str
    task_id: str


class OneOut(BaseModel):
    """`status` is what `POST /tasks` would have answered."""

    status: int
    task_id: str | None
    message: str | None = None
    error: str | None = None


class BatchOut(BaseModel):
    results: list[OneOut]


class ErrorOut(BaseModel):
    error: str


class HealthOut(BaseModel):
    status: str
    error: str | None = None


class AttemptOut(BaseModel):
    number: int
    to: str
    at: datetime
    seconds: float
    status: int | None
    error: str | None


class TaskSummaryOut(BaseModel):
    id: str
    state: str
    source: str
    client_id: str
    destination_type: str
    destination: dict[str, str | int]
    dead_destination: dict[str, str | int]
    is_priority: bool
    max_retries: int
    attempt: int
    created_at: datetime
    next_delivery_at: datetime | None
    ended_at: datetime | None
    last_error: str | None


class TaskOut(TaskSummaryOut):
    base_delay: float
    backoff: BackoffIn
    message_data: str
    attempts: list[AttemptOut]
    is_being_delivered: bool


class TaskListOut(BaseModel):
    tasks: list[TaskSummaryOut]
    cursor: str | None = Field(description="Pass it for the next page; none: this was the last")


_TASK = TypeAdapter(TaskIn)
_BATCH = TypeAdapter(BatchIn)


def read_task(body: bytes | Any) -> TaskIn:
    """From JSON, or from what JSON gave. Raises `ValueError` that names the fields."""
    try:
        return _TASK.validate_json(body) if isinstance(body, bytes) else _TASK.validate_python(body)
    except ValidationError as error:
        raise ValueError(_sentence(error)) from None


def read_batch(body: bytes) -> list[Any]:
    """The tasks of a batch, each still to be read. Raises `ValueError`."""
    try:
        return _BATCH.validate_python(orjson.loads(body)).tasks
    except orjson.JSONDecodeError:
        pass  # what it does not read, the other may
    except ValidationError as error:
        raise ValueError(_sentence(error)) from None
    try:
        return _BATCH.validate_json(body).tasks
    except ValidationError as error:
        raise ValueError(_sentence(error)) from None


def _sentence(error: ValidationError) -> str:
    """Never with what was given: that may be a payload."""
    found: dict[str, str] = {}
    for one in error.errors(include_input=False, include_url=False, include_context=False):
        if one["type"] == "json_invalid":
            return "payload is not valid JSON"
        # Of a union, the part that names its member is none of the user's fields.
        parts = [str(part) for part in one["loc"] if not str(part).startswith(("literal[", "BackoffIn"))]
        parts = [part for part in parts if part not in ("str", "int")]
        field = ".".join(parts) or "payload"
        text = "is required" if one["type"] == "missing" else _plain(one["msg"])
        found.setdefault(field, text)
    return "; ".join(f"{field} {text}" for field, text in found.items())


def _plain(message: str) -> str:
    if message.startswith("String should match pattern"):
        return "must not have control characters, and an id no slash or leading dot"
    if message.startswith("Input should be a valid dictionary"):
        return "should be a JSON object"
    if message == "Extra inputs are not permitted":
        return "is no field of a task"
    for before in ("Input should be ", "String should ", "List should ", "Dictionary should "):
        if message.startswith(before):
            return (
                f"should be {message.removeprefix(before)}"
                if before.endswith("be ")
                else f"should {message.removeprefix(before)}"
            )
    return message


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")


def view_of(task: Task, *, full: bool = False, is_claimed: bool = False) -> dict[str, Any]:
    """As `TaskSummaryOut`, or in full as `TaskOut`."""
    is_final = task.state.is_final
    seen: dict[str, Any] = {
        "id": task.id,
        "state": task.state.value,
        "source": task.source,
        "client_id": task.client_id,
        "destination_type": task.destination_type,
        "destination": dict(task.destination),
        "dead_destination": dict(task.dead_destination),
        "is_priority": task.is_priority,
        "max_retries": task.max_retries,
        "attempt": task.attempt,
        "created_at": _when(task.created_at),
        "next_delivery_at": None if is_final else _when(task.due_at),
        "ended_at": _when(task.due_at) if is_final else None,
        "last_error": task.attempts[-1].error if task.attempts else None,
    }
    if full:
        seen |= {
            "base_delay": task.base_delay,
            "backoff": {
                "type": task.backoff.kind,
                "max_delay": task.backoff.max_delay,
                "jitter": task.backoff.jitter,
            },
            "message_data": task.message_data,
            "attempts": [
                {
                    "number": one.number,
                    "to": one.to,
                    "at": _when(one.at),
                    "seconds": one.seconds,
                    "status": one.status,
                    "error": one.error,
                }
                for one in task.attempts
            ],
            "is_being_delivered": is_claimed,
        }
    return seen
