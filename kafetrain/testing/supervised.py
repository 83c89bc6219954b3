"""The owner's side of `supervisor`: a child process that cannot outlive this one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from kafetrain.testing import supervisor

__all__ = ["SupervisedProcess"]


class SupervisedProcess:
    """`command`, running when the constructor returns; its output is appended to `log`.

    Ends with this process in any case; `scratch` is then removed as well. Signals from the terminal (Ctrl-C) do not
    reach it: the tests that it serves need it until they are through with theirs. A process forked without exec
    from this one keeps it alive, as it shares the pipe.
    """

    def __init__(self, command: Sequence[str], *, log: Path, scratch: Path) -> None:
        with log.open("ab") as output:  # for what the supervisor itself has to say: no such program, say
            self._process = subprocess.Popen(
                # No environment, no site packages: up in 10 ms, and no code of others in it.
                [sys.executable, "-I", "-S", supervisor.__file__, str(log), str(scratch), *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The supervisor's; the program's own is unknown here."""
        return self._process.pid

    def wait(self, timeout_s: float) -> int | None:
        """The program's exit code, or None if it still runs after `timeout_s`. Over it, all its sockets are closed."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        self._close_pipe()
        return code

    def terminate(self, patience_s: float) -> bool:
        """Ask it to end, kill it when it has not within `patience_s`; returns when it is gone. False: killed."""
        self._order(supervisor.TERMINATE)
        if self.wait(patience_s) is None:
            self.kill()
            return False
        return True

    def kill(self) -> None:
        """End it at once; returns when it is gone."""
        self._order(supervisor.KILL)
        self._process.wait()
        self._close_pipe()

    def _order(self, order: bytes) -> None:
        pipe = self._process.stdin
        if pipe is None or pipe.closed:
            return
        try:
            pipe.write(order)
            pipe.flush()
        except BrokenPipeError:
            pass  # it has just ended, which is what the order was for

    def _close_pipe(self) -> None:
        if self._process.stdin is not None:
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                pass  # an order that was still in the buffer
