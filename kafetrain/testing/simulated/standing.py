"""Where a group stands, for the promises: read from what is in its topics, as anybody could."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from kafetrain.record import MessageId, RetryHeader, header
from kafetrain.settings import Settings
from kafetrain.testing.events import Standing, Written
from kafetrain.topics import AuxiliaryTopics

if TYPE_CHECKING:
    from kafetrain.testing.simulated.cluster import SimulatedCluster

__all__ = ["standing_of"]


def standing_of(
    cluster: SimulatedCluster,
    settings: Settings,
    topic: str,
    written: tuple[Written, ...],
    group_of: Callable[[str], str] | None,
) -> Standing:
    """See `SimulatedCluster.standing`."""
    names, group = AuxiliaryTopics.of(settings, topic), settings.group_id
    locks = {}
    for text, entry in cluster.locks(names.redirect).items():
        id = MessageId.parse(text)
        if (id.group, id.topic) == (group, topic):
            locks[id.partition, id.offset] = str(entry.get("state", "pending"))
    foreign = () if group_of is None else tuple(_foreign(cluster, names, group, group_of))
    uncommitted = _behind(cluster, group, topic) | _behind(cluster, settings.retry_group_id, names.retry)
    return Standing(written, cluster.dead_places(names.dlq, group), locks, uncommitted, foreign)


def _behind(cluster: SimulatedCluster, group: str, topic: str) -> dict[str, int]:
    if topic not in cluster.topics():
        return {}
    committed = {partition: offset.next_offset for partition, offset in cluster.committed(group, topic).items()}
    return {
        f"{topic}[{partition}]": end - committed.get(partition, 0)
        for partition, end in cluster.end_offsets(topic).items()
        if end > committed.get(partition, 0)
    }


def _foreign(
    cluster: SimulatedCluster, names: AuxiliaryTopics, group: str, group_of: Callable[[str], str]
) -> Iterator[str]:
    for topic in (names.retry, names.redirect):
        for record in cluster.read(topic) if topic in cluster.topics() else ():
            text = header(record, RetryHeader.ID) or (record.key or b"").decode("utf-8", "replace")
            is_ours = text.startswith(f"{group}/{names.source}/")
            if is_ours and record.author and group_of(record.author) != group:
                yield f"{record} by {record.author}"
