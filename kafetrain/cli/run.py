"""`kafetrain run`: an app in this process, or in several."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["run"]


def run(
    app: Annotated[
        str, typer.Argument(help="An App, or a Registry: module:attribute, as in billing:app.", show_default=False)
    ],
    workers: Annotated[int, typer.Option("--workers", min=1, help="So many processes, each a member.")] = 1,
    reload: Annotated[bool, typer.Option("--reload", help="Start again when a file changes. For development.")] = False,
    log_level: Annotated[str, typer.Option("--log-level", help="trace, debug, info, warning, error.")] = "info",
    json_logs: Annotated[bool, typer.Option("--json-logs", help="One JSON object a line.")] = False,
    is_child: Annotated[bool, typer.Option("--is-child", hidden=True)] = False,
) -> None:
    """Run an app until Ctrl-C, SIGTERM, or an error that no retry can help.

    Exit code 0: it was asked to stop, and everything that ran has ended; 1: an error, or a worker ended.
    """
    from kafetrain.app import children
    from kafetrain.app.load import load_app
    from kafetrain.app.logs import LEVELS, show_logs
    from kafetrain.errors import ConfigurationError

    if log_level.lower() not in LEVELS:
        raise ConfigurationError(f"--log-level {log_level} may be {', '.join(LEVELS)}")
    if reload and workers > 1:
        raise ConfigurationError("--reload runs one process: leave --workers away")
    show_logs(log_level, as_json=json_logs)
    if is_child:
        children.end_with_parent()
    if not reload:  # with it, an app that is broken now may be mended in a moment
        found = load_app(app)
    if workers == 1 and not reload:
        gc.freeze()  # what was imported is never garbage: the collector need not look through it
        found.run()
        return
    same = ["run", app, "--is-child", "--log-level", log_level, *(["--json-logs"] if json_logs else [])]
    if reload:
        try:
            import watchfiles  # noqa: F401 - only whether it is there
        except ImportError:
            raise ConfigurationError("--reload needs watchfiles: pip install 'kafetrain[reload]'") from None
        sys.exit(children.run_reloading(same, Path.cwd()))
    sys.exit(children.run_workers(same, workers))
