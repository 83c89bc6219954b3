"""An app, or a registry of managed consumers, by its name: `module:attribute`, as on the command line."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from kafetrain.app.app import App
from kafetrain.errors import ConfigurationError, KafetrainError
from kafetrain.managed import Registry
from kafetrain.settings_checks import nearest

__all__ = ["load_app"]


def load_app(name: str) -> App | Registry:
    """Import the module, the working directory before all other places. `ConfigurationError` where there is none.

    What the module itself raises while it is imported is named, with the line that it came from.
    """
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise ConfigurationError(f"{name!r} names no app: write module:attribute, as in billing:app")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigurationError(f"{module_name} cannot be imported: it needs {error.name}") from error
        dotted = module_name.removesuffix(".py").replace("/", ".")
        meant = "" if dotted == module_name else f"; a module is no file: write {dotted}:{attribute}"
        raise ConfigurationError(f"there is no module {module_name} in {folder} or on the Python path{meant}") from None
    except KafetrainError:
        raise
    except Exception as error:
        raise ConfigurationError(f"{module_name} cannot be imported: {type(error).__name__}{_place(error)}") from error
    found: object = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigurationError(f"{module_name} has no {attribute}{nearest(part, vars(module))}")
        found = getattr(found, part)
    if not isinstance(found, App | Registry):
        raise ConfigurationError(f"{name} is a {type(found).__name__}, and neither an App nor a Registry")
    return found


def _place(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f" in {error.filename}, line {error.lineno}"
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f" in {trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno}"
