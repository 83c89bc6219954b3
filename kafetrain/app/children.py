"""The processes of `kafetrain run --workers N`, and of `--reload`: the same command again, without that option."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from loguru import logger

from kafetrain.consumer.consumer import stopped_by_signals

__all__ = ["end_with_parent", "run_reloading", "run_workers"]

LOOK_EVERY_S = 0.1


class _Children:
    def __init__(self, arguments: Sequence[str], count: int) -> None:
        command = [sys.executable, "-m", "kafetrain", *arguments]
        # A session of their own: Ctrl-C reaches us alone, and we pass it on. Else they would get it twice.
        self._processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) for _ in range(count)
        ]

    def ended(self) -> list[int]:
        """Exit codes of those that have ended."""
        return [code for process in self._processes if (code := process.poll()) is not None]

    def stop(self) -> list[int]:
        """Ask all to stop, then wait for all: each bounds that by its own `shutdown_timeout`. Their exit codes."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        return [process.wait() for process in self._processes]


def end_with_parent() -> None:
    """In a child: be asked to stop when the parent is gone, however it went. It holds the other end of our stdin."""

    def wait() -> None:
        sys.stdin.read()
        signal.raise_signal(signal.SIGTERM)

    threading.Thread(target=wait, name="kafetrain-parent", daemon=True).start()


def run_workers(arguments: Sequence[str], count: int) -> int:
    """`count` processes until a signal comes, or one of them ends: then all of them end. The exit code; 0: all is well.

    None is started again: that is what service managers do, who also know when to give up.
    """
    stopping = threading.Event()
    with stopped_by_signals(stopping.set):
        children = _Children(arguments, count)
        first: list[int] = []
        try:
            while not stopping.wait(LOOK_EVERY_S) and not first:
                first = children.ended()
        finally:
            codes = children.stop()
    # One that was still starting when it was asked ends by the signal itself, and that is fine.
    failed = [code for code in (*first, *codes) if code not in (0, -signal.SIGTERM)]
    if failed and not stopping.is_set():
        logger.error("a worker ended with exit code {}, and so do the others", failed[0])
    return abs(failed[0]) if failed else 0


def run_reloading(arguments: Sequence[str], folder: Path) -> int:
    """One process, started again whenever a `.py`, `.yaml` or `.toml` file below `folder` changes. For development."""
    from watchfiles import PythonFilter, watch

    stopping = threading.Event()
    with stopped_by_signals(stopping.set):
        children = _Children(arguments, 1)
        try:
            look = PythonFilter(extra_extensions=(".yaml", ".yml", ".toml"))
            for changes in watch(folder, watch_filter=look, stop_event=stopping, raise_interrupt=False):
                names = sorted({Path(path).name for _, path in changes})
                logger.info("{} changed: starting again", ", ".join(names))
                children.stop()
                children = _Children(arguments, 1)
        finally:
            children.stop()
    return 0
