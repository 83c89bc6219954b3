"""How a managed consumer is doing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from kafetrain.client.choose import client_for
from kafetrain.client.ports import ClientError
from kafetrain.record import TopicPartition
from kafetrain.settings import Settings

__all__ = ["ConsumerState", "ConsumerStatus", "lag_of"]


class ConsumerState(Enum):
    """Where a consumer stands between its switch and its group."""

    OFF = "off"
    """Switched off, or never switched on."""
    STARTING = "starting"
    """Connecting; with `retry`, restoring locks."""
    RUNNING = "running"
    STOPPING = "stopping"
    """Finishes what runs, commits, leaves the group."""
    RESTARTING = "restarting"
    """It failed, and waits for its restart."""
    DISABLED = "disabled"
    """It failed too often in a row. Only its switch brings it back."""


@dataclass(frozen=True, slots=True)
class ConsumerStatus:
    """Of one moment. `since` is an aware datetime in UTC."""

    job_name: str
    state: ConsumerState
    since: datetime
    restarts: int
    """Since it was switched on."""
    consecutive_errors: int
    last_error: str | None
    """Type of the last error and, where kafetrain raised it, its text; a handler's own text may hold a payload."""
    lag: Mapping[TopicPartition, int | None] = field(default_factory=dict)
    """Records that are not committed yet, by partition; None where nothing is committed. Empty where not asked for."""


def lag_of(settings: Settings, topics: list[str]) -> dict[TopicPartition, int | None]:
    """What the group has not committed yet. Asks the brokers; `ClientError` where none answers."""
    try:
        admin = client_for(settings).admin()
    except ClientError as error:
        raise ClientError(f"the lag of {', '.join(topics)} is not known: {error}", retriable=True) from error
    try:
        described = admin.describe_topics(topics)
        places = [
            TopicPartition(name, number) for name, found in described.items() for number in range(found.partitions)
        ]
        committed, ends = admin.committed(settings.group_id, places), admin.end_offsets(places)
    finally:
        admin.close()
    return {
        place: max(0, ends[place] - committed[place].next_offset) if place in committed else None
        for place in sorted(places)
    }
