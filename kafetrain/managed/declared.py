"""What a service declares about a consumer or a producer: frozen, checked as a whole, with every wrong field named."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError

from kafetrain import settings_checks as checks
from kafetrain.durations import parse_duration
from kafetrain.errors import ConfigurationError

__all__ = ["Count", "Declared", "Duration", "Name", "Servers"]

_SECRET = frozenset({"client_options", "retry"})


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("it must be more than nothing")
    return value


def _name(value: str) -> str:
    if not value or value != value.strip():
        raise ValueError("it must be a name without blanks around it")
    return value


Count = Annotated[int, BeforeValidator(checks.whole_number)]
Duration = Annotated[timedelta, BeforeValidator(parse_duration), AfterValidator(_positive)]
Name = Annotated[str, AfterValidator(_name)]
Servers = Annotated[list[str], BeforeValidator(checks.servers)]


class Declared(BaseModel):
    """Raises one `ConfigurationError` for all that is wrong. Durations and sizes may be text, as in `Settings`."""

    # Inputs stay out of pydantic's texts: client_options may hold a password.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, arbitrary_types_allowed=True)

    def __init__(self, **values: Any) -> None:
        problems: list[str] = []
        try:
            super().__init__(**values)
        except ValidationError as error:
            problems += type(self)._problems_of(error)
        # Not raised inside of the handler: as its context pydantic's error would keep the inputs.
        if problems:
            raise ConfigurationError(f"{type(self).__name__}: {'; '.join(problems)}")

    @classmethod
    def _problems_of(cls, error: ValidationError) -> Iterator[str]:
        seen: set[str] = set()
        for detail in error.errors(include_url=False):
            name = str(detail["loc"][0]) if detail["loc"] else "its fields"
            if name in seen:  # pydantic reports each branch of a union
                continue
            seen.add(name)
            if detail["type"] == "extra_forbidden":
                yield f"{name} is unknown{checks.nearest(name, cls.model_fields)}"
            elif detail["type"] == "missing":
                yield f"{name} is missing"
            else:
                cause = detail.get("ctx", {}).get("error")
                reason = str(cause) if isinstance(cause, ValueError) else detail["msg"].lower()
                shown = name if name in _SECRET or not detail["loc"] else f"{name} = {detail['input']!r:.120}"
                yield f"{shown}: {reason}"
