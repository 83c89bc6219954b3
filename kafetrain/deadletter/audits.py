"""Who asks for a change, as it is kept in the log for good."""

from __future__ import annotations

import getpass
import socket
import uuid

from kafetrain.clock import Clock, SystemClock
from kafetrain.core.control import Audit

__all__ = ["new_audit"]


def new_audit(*, by: str | None, why: str | None, transform: str | None = None, clock: Clock | None = None) -> Audit:
    """Of a command that is given now. `by` None: the user and host that this runs as."""
    return Audit(uuid.uuid4().hex, by or _user_at_host(), (clock or SystemClock()).now_ms(), why, transform)


def _user_at_host() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
