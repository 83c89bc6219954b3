"""Sending from an app: to one topic, with what the app knows of the cluster."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from kafetrain.app.backend import Sender
from kafetrain.errors import ConfigurationError
from kafetrain.managed import Metadata
from kafetrain.managed.producer import Callback, GivenHeaders

__all__ = ["Publisher", "encoded"]


class Publisher:
    """Of one topic. Any thread, handlers too; closed with the app.

    A value is bytes or text as it is, a pydantic model as its JSON, a mapping or a list as JSON, or None: a tombstone.
    """

    def __init__(self, topic: str, sender: Callable[[], Sender]) -> None:
        self.topic = topic
        self._sender = sender

    def publish(self, value: Any, *, key: str | bytes | None = None, headers: GivenHeaders = ()) -> Metadata:
        """Append a record and wait until that is durable. Returns its partition and offset; raises `ClientError`."""
        return self._sender().send(self.topic, key, encoded(value), headers)

    def publish_async(
        self,
        value: Any,
        *,
        key: str | bytes | None = None,
        headers: GivenHeaders = (),
        callback: Callback | None = None,
    ) -> None:
        """As `publish`, without waiting: see `ManagedProducer.send_async`."""
        self._sender().send_async(self.topic, key, encoded(value), headers, callback)


def encoded(value: Any) -> str | bytes | None:
    """A value as it is sent. Raises `ConfigurationError` for what cannot be."""
    if value is None or isinstance(value, str | bytes):
        return value
    if isinstance(value, BaseModel):
        return value.model_dump_json()
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        raise ConfigurationError(
            f"{type(value).__name__} cannot be published: it is neither bytes, text, a pydantic model, nor JSON"
        ) from None
