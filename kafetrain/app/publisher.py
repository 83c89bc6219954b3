"""Sending from an app: to one topic, with what the app knows of the cluster."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from kafetrain.errors import ConfigurationError
from kafetrain.managed import ManagedProducer, Metadata
from kafetrain.managed.producer import Callback, GivenHeaders

__all__ = ["Publisher"]


class Publisher:
    """Of one topic. Any thread, handlers too; closed with the app.

    A value is bytes or text as it is, a pydantic model as its JSON, a mapping or a list as JSON, or None: a tombstone.
    """

    def __init__(self, topic: str, producer: ManagedProducer) -> None:
        self.topic = topic
        self._producer = producer

    def publish(self, value: Any, *, key: str | bytes | None = None, headers: GivenHeaders = ()) -> Metadata:
        """Append a record and wait until that is durable. Returns its partition and offset; raises `ClientError`."""
        return self._producer.send(self.topic, key, _encoded(value), headers)

    def publish_async(
        self,
        value: Any,
        *,
        key: str | bytes | None = None,
        headers: GivenHeaders = (),
        callback: Callback | None = None,
    ) -> None:
        """As `publish`, without waiting: see `ManagedProducer.send_async`."""
        self._producer.send_async(self.topic, key, _encoded(value), headers, callback)


def _encoded(value: Any) -> str | bytes | None:
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
