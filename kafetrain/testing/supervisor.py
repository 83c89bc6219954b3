"""Runs one program for an owner, and ends it when the owner ends, however that happens.

A broker must not outlive the tests that started it, not even when they are killed and clean nothing up. Its parent
is therefore this small process, which holds the reading end of a pipe: the owner has the only writing end, so the
kernel closes it at the owner's death, whatever the cause. (Linux could signal a child at its parent's death, but
at that of the parent's *thread*, and it takes code between fork and exec; a pipe has neither fault, and is portable.)

Run as a script, by path and without site packages: it imports the standard library only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading

__all__ = ["KILL", "TERMINATE", "supervise"]

TERMINATE = b"t"
KILL = b"k"


def supervise(command: list[str], log: str, scratch: str, control: int) -> int:
    """Run `command`, its output appended to the file `log`, until it ends; return its exit code.

    `control`: a file descriptor. `TERMINATE` and `KILL` read from it are sent on as signals; its end means that the
        owner is gone: the program is killed, and the folder `scratch` removed with all that is in it.
    """
    with open(log, "ab") as output:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    owner_gone = threading.Event()
    threading.Thread(target=_obey, args=(child, control, owner_gone), daemon=True).start()
    code = child.wait()
    if owner_gone.is_set():
        shutil.rmtree(scratch, ignore_errors=True)
    return code


def _obey(child: subprocess.Popen[bytes], control: int, owner_gone: threading.Event) -> None:
    while order := os.read(control, 1):
        if order == TERMINATE:
            child.terminate()
        elif order == KILL:
            child.kill()
    owner_gone.set()  # before the kill: whoever waits for the child looks at it next
    child.kill()


if __name__ == "__main__":
    sys.exit(supervise(sys.argv[3:], sys.argv[1], sys.argv[2], control=0) & 0xFF)
