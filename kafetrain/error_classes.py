"""Error classes by their names, as files and the environment have them."""

from __future__ import annotations

import builtins
import difflib
import importlib
from collections.abc import Iterable, Mapping

__all__ = ["error_classes"]


def error_classes(value: object) -> tuple[type[Exception], ...]:
    """Exception classes, or their dotted names (`requests.exceptions.Timeout`; built-in ones without dots)."""
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",") if name.strip()]
    items = [value] if isinstance(value, type) else value
    if not isinstance(items, Iterable) or isinstance(items, bytes | Mapping):
        raise ValueError(f"{type(value).__name__} is no list of error classes")
    return tuple(_error_class(item) for item in items)


def _error_class(item: object) -> type[Exception]:
    found = _named(item) if isinstance(item, str) else item
    if not isinstance(found, type):
        raise ValueError(f"{item!r} is not a class")
    if not issubclass(found, Exception):
        why = "never reaches a retry" if issubclass(found, BaseException) else "is no error class"
        raise ValueError(f"{found.__name__} {why}; only subclasses of Exception can be retried")
    return found


def _named(name: str) -> object:
    if "." not in name and hasattr(builtins, name):
        return getattr(builtins, name)
    parts = name.split(".")
    # The longest importable beginning is the module, the rest are names in it: pkg.module.Outer.Inner.
    for split in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:split])
        try:
            found: object = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
                continue
            raise ValueError(f"{name}: importing {module} failed: {error}") from None
        except Exception as error:
            raise ValueError(f"{name}: importing {module} failed: {type(error).__name__}: {error}") from None
        for part in parts[split:]:
            if not hasattr(found, part):
                raise ValueError(f"{name}: {module} has no {'.'.join(parts[split:])}")
            found = getattr(found, part)
        return found
    hint = "" if "." in name else f"; only built-in errors have no dots{_nearest_builtin(name)}"
    raise ValueError(f"{name} cannot be imported{hint}")


def _nearest_builtin(name: str) -> str:
    errors = [n for n, v in vars(builtins).items() if isinstance(v, type) and issubclass(v, Exception)]
    matches = difflib.get_close_matches(name, errors, n=1)
    return f"; did you mean {matches[0]}?" if matches else ""
