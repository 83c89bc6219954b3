"""Records as a client delivers them, made by hand."""

from __future__ import annotations

from dataclasses import dataclass

from kafetrain.record import Headers

__all__ = ["Made", "record"]


@dataclass(frozen=True)
class Made:
    topic: str = "orders"
    partition: int = 0
    offset: int = 0
    key: bytes | None = b"key"
    value: bytes | None = b"value"
    headers: Headers = ()
    timestamp: int = 0


record = Made
