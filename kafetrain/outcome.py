"""What became of a record, and what a lock looks like from outside."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

__all__ = ["Lock", "Outcome"]


class Outcome(Enum):
    """What `process` did with a record. All but NOT_DUE: it is durable, and its offset may be committed."""

    SUCCEEDED = "succeeded"
    """The handler ran and returned."""
    REDIRECTED = "redirected"
    """The handler ran and failed; the record waits in the retry topic."""
    SIDELINED = "side-lined"
    """It did not run: an earlier record of its key is in retry, and it waits behind that one."""
    PARKED = "parked"
    """It did not run: its key is dead, and it lies in the dead-letter topic behind the record that died."""
    DEAD_LETTERED = "dead-lettered"
    """The handler ran, failed, and may not run again: the record is in the dead-letter topic."""
    ALREADY_ENDED = "already ended"
    """It did not run: it, or a later record of its key, is known to have ended. Or it belongs to another group."""
    NOT_DUE = "not due"
    """A retry record whose time has not come. Nothing was done; do not commit it."""


@dataclass(frozen=True, slots=True)
class Lock:
    """One key in retry. Times are aware datetimes in UTC."""

    topic: str
    partition: int
    key: bytes | None
    state: str
    """`pending`, or `dead`: the key stands still until somebody decides."""
    head: str
    """The message id that runs next, or that died."""
    pending: int
    """How many records wait, the head included unless it is dead."""
    attempt: int
    """Executions of the head that failed."""
    due: datetime
    """When the head runs next; meaningless for a dead one."""
    first_failure: datetime | None
    error_type: str | None
    error: str | None
