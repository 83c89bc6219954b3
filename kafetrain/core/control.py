"""Control records: what an operator asks for a key, at one place in the order of its retry partition.

The retry consumer alone acts on a key, so a command does not touch locks: it appends a control record, which that
consumer obeys when it comes to it, now or after its next start. Each names the id that it is about, and acts only
while that id is as its author saw it; so obeying it twice changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from kafetrain.core.entry import cut
from kafetrain.record import MessageId, RetryHeader

__all__ = ["Action", "Audit", "Control", "audit_headers", "control_headers"]

MAX_TEXT_BYTES = 500


class Action(str, Enum):
    """What is asked."""

    RELEASE = "release"
    """Forget the dead head of the key; what comes next runs. Acts while the id is dead."""
    REPLAY = "replay"
    """Run the dead head again, and in order what was parked behind it. Acts while the id is dead."""
    APPEND = "append"
    """Put one dead letter of a key that is not dead into retry again. Acts while the id has no lock."""
    RETRY_NOW = "retry-now"
    """What is pending and not due yet is due now. Acts while the id is pending."""
    SKIP = "skip"
    """The record goes to the dead-letter topic as `skipped`, and the next of its key runs. Acts while the id is
    pending; what runs is waited for."""


@dataclass(frozen=True, slots=True)
class Audit:
    """Who asked, when (ms since the epoch), in which command, and why."""

    command: str
    """Unique to one command: all of its control records, and the dead letters that it changed, carry it."""
    by: str
    at_ms: int
    why: str | None = None
    transform: str | None = None
    """`module:function` that changed the payloads before they were to run."""


@dataclass(frozen=True, slots=True)
class Control:
    """One control record's headers."""

    action: str
    """An `Action`, or what only a newer version knows."""
    id: MessageId
    lock_offset: int
    """It is obeyed once the table has applied this offset of the redirect partition: all that its author saw. -1: at
    once."""
    audit: Audit
    dead_at: tuple[int, int] | None = None
    """`APPEND`: partition and offset of the dead letter to run, a changed copy of it where there is one."""


def control_headers(control: Control) -> list[tuple[str, bytes | None]]:
    """Of a control record. Its key is the record key of the id; its value is empty."""
    at = control.dead_at
    pairs: list[tuple[str, object]] = [
        (RetryHeader.ID, control.id),
        (RetryHeader.GROUP, control.id.group),
        (RetryHeader.TOPIC, control.id.topic),
        (RetryHeader.PARTITION, control.id.partition),
        (RetryHeader.OFFSET, control.id.offset),
        (RetryHeader.LOCK_OFFSET, control.lock_offset),
        (RetryHeader.CONTROL, control.action.value if isinstance(control.action, Action) else control.action),
        (RetryHeader.DEAD_AT, None if at is None else f"{at[0]}/{at[1]}"),
    ]
    return [(name, str(value).encode()) for name, value in pairs if value is not None] + audit_headers(control.audit)


def audit_headers(audit: Audit) -> list[tuple[str, bytes | None]]:
    """Who asked for a change; on control records, and on what was written because of them."""
    pairs = (
        (RetryHeader.COMMAND, audit.command),
        (RetryHeader.BY, cut(audit.by, MAX_TEXT_BYTES)),
        (RetryHeader.AT, str(audit.at_ms)),
        (RetryHeader.WHY, None if audit.why is None else cut(audit.why, MAX_TEXT_BYTES)),
        (RetryHeader.TRANSFORM, None if audit.transform is None else cut(audit.transform, MAX_TEXT_BYTES)),
    )
    return [(name, value.encode("utf-8", "replace")) for name, value in pairs if value is not None]
