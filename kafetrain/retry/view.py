"""A retried record as its handler sees it: the source record it was, plus what has happened to it since."""

from __future__ import annotations

from kafetrain.core.entry import Entry
from kafetrain.core.headers import retry_headers
from kafetrain.record import Headers
from kafetrain.tracker.writes import SourceRecord

__all__ = ["SourceView"]


class SourceView:
    """Topic, partition, offset, timestamp and headers of the source record; `x-retry-*` headers behind them."""

    __slots__ = ("headers", "key", "offset", "partition", "timestamp", "topic", "value")

    def __init__(self, source: SourceRecord, entry: Entry, max_retries: int | None) -> None:
        self.topic = source.id.topic
        self.partition = source.id.partition
        self.offset = source.id.offset
        self.key = source.key
        self.value = source.value
        self.timestamp = source.timestamp_ms
        self.headers: Headers = retry_headers(
            source.id,
            source.headers,
            timestamp_ms=source.timestamp_ms,
            entry=entry,
            max_retries=max_retries,
            transform=source.transform,
            nulls_as_empty=False,
        )

    def __repr__(self) -> str:
        return f"<retried record {self.topic}[{self.partition}]@{self.offset}>"
