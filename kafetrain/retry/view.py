"""A retried record as its handler sees it: the source record it was, plus what has happened to it since."""

from __future__ import annotations

from kafetrain.core.entry import Entry
from kafetrain.core.headers import retry_headers
from kafetrain.record import Headers
from kafetrain.tracker.writes import SourceRecord

__all__ = ["SourceView"]


class SourceView:
    """Topic, partition, offset, timestamp and headers of the source record; `x-retry-*` headers behind them."""

    __slots__ = ("_entry", "_headers", "_max_retries", "_source", "key", "offset", "partition", "topic", "value")

    def __init__(self, source: SourceRecord, entry: Entry, max_retries: int | None) -> None:
        self._source, self._entry, self._max_retries = source, entry, max_retries
        self._headers: Headers | None = None
        _, self.topic, self.partition, self.offset = source.id
        self.key = source.key
        self.value = source.value

    @property
    def timestamp(self) -> int:
        return self._source.timestamp_ms

    @property
    def headers(self) -> Headers:
        if self._headers is None:  # most handlers never ask
            source = self._source
            self._headers = retry_headers(
                source.id,
                source.headers,
                timestamp_ms=source.timestamp_ms,
                entry=self._entry,
                max_retries=self._max_retries,
                transform=source.transform,
                nulls_as_empty=False,
            )
        return self._headers

    def __repr__(self) -> str:
        return f"<retried record {self.topic}[{self.partition}]@{self.offset}>"
