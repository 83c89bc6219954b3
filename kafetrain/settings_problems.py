"""What is wrong with settings, in words: each one's name, what it was (never a secret), why not, and what it may be."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from pydantic import ValidationError
from pydantic.fields import FieldInfo

__all__ = ["MayBe", "Together", "as_text", "problems_of"]

_SECRET = frozenset({"sasl_password", "client_options"})


class MayBe(str):
    """What a setting may be, in words: the end of the sentence that an error begins. Beside the setting's type."""


class Together(ValueError):
    """Problems that several settings have with each other, as (setting, text)."""

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{name}: {text}" for name, text in problems))
        self.problems = problems


def problems_of(
    error: ValidationError, fields: Mapping[str, FieldInfo], prefix: str, given: Collection[str]
) -> Iterator[str]:
    """One for each setting. `given` are from code; all others from the environment, where they have the prefix."""
    seen: set[str] = set()
    for detail in error.errors(include_url=False):
        name = str(detail["loc"][0]) if detail["loc"] else "settings"
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, Together):
            yield from (f"{field}: {text}" for field, text in cause.problems)
        elif name in seen:  # pydantic reports each branch of a union
            continue
        else:
            may_be = next((m for m in fields[name].metadata if isinstance(m, MayBe)), None)
            variable = f"{prefix}{name.upper()}"
            if detail["type"] == "missing":
                yield f"{name} is missing: pass it, or set {variable}; it may be {may_be}"
            else:
                source = "" if name in given else f" (from {variable})"
                reason = f": {cause}" if isinstance(cause, ValueError) else ""
                yield f"{_shown(name, detail['input'])}{source}{reason}; it may be {may_be}"
        seen.add(name)


def as_text(problems: Sequence[str]) -> str:
    """One line for a single problem, else a line each below their number."""
    if len(problems) == 1:
        return problems[0]
    return "\n  ".join([f"{len(problems)} settings are wrong:", *problems])


def _shown(name: str, value: object, limit: int = 120) -> str:
    if name in _SECRET:
        return f"{name} (not shown)"
    try:
        text = repr(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    return f"{name} = {text if len(text) <= limit else f'{text[:limit]}...'}"
