"""A producer with options of a service's own, which finds partitions itself.

`ProducerPort` is for the protocol: every record durable, at a partition that is known. Here both are the service's to
choose. What keeps memory bounded and ends every future is the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from kafka import KafkaProducer
from kafka import errors as kafka_errors
from kafka.codec import has_lz4, has_snappy, has_zstd
from kafka.partitioner.default import murmur2

from kafetrain.client.kafka_python import KafkaPythonClient
from kafetrain.client.kafka_python_errors import client_error
from kafetrain.client.kafka_python_producer import KafkaPythonProducer, Open
from kafetrain.client.kafka_python_workarounds import (
    keep_producer_usable_after_rejections,
    send_nothing_that_has_failed,
)
from kafetrain.client.ports import ClientError

__all__ = ["Compression", "Publisher", "PublishingClient", "what_is_missing"]

Compression: TypeAlias = Literal["none", "gzip", "snappy", "lz4", "zstd"]

STAY_FOR = 100
"""Records without a key go to one partition so many times before the next: batches are fuller than by turns."""

_LIBRARIES = {"snappy": (has_snappy, "python-snappy"), "lz4": (has_lz4, "lz4"), "zstd": (has_zstd, "zstandard")}


def what_is_missing(compression: str) -> str | None:
    """For an error, behind what is at fault: the package that this compression needs and that is not installed."""
    is_there, package = _LIBRARIES.get(compression, (bool, ""))
    if not package or is_there():
        return None
    return f"needs the package {package}: pip install 'kafetrain[compression]'"


class Publisher(KafkaPythonProducer):
    """A `ProducerPort` that also says where a record goes. With acks 0 its offsets are -1: nobody tells them."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._keyless = itertools.count()
        super().__init__(*args, **options)

    def _built(self, api_version: Any) -> Any:
        producer = self._build(api_version)
        send_nothing_that_has_failed(producer)
        if producer._transaction_manager is not None:  # else it is not idempotent, and rejections harm nothing
            keep_producer_usable_after_rejections(producer)
        return producer

    def partition_of(self, topic: str, key: bytes | None) -> int:
        """Where the Java client would put it, by the hash of its key. Waits for the topic's metadata, `max_block_ms`
        at most; then `ClientError`."""
        try:
            count = len(self._working_producer().partitions_for(topic))
        except kafka_errors.KafkaTimeoutError as error:
            why = "no broker tells its partitions. Is there such a topic, and may this user see it?"
            raise ClientError(f"sending to {topic}: {why}", retriable=True) from error
        except Exception as error:
            raise client_error(error, f"sending to {topic}") from error
        if key is None:
            return next(self._keyless) // STAY_FOR % count
        return int(murmur2(key) & 0x7FFFFFFF) % count


class _NobodyTells(Publisher):
    """With acks 0 brokers do not answer, and the library makes offsets up: sent is all that there is to know."""

    def _acknowledged(self, one: Open, offset: int) -> None:
        if self._open.remove(one):
            one.set_result(-1)


class PublishingClient(KafkaPythonClient):
    """A `KafkaPythonClient` that also builds publishers."""

    def publisher(self, options: Mapping[str, Any], *, delivery_timeout_ms: int, max_block_ms: int) -> Publisher:
        """`options`: kafka-python's, over everything else. Connects; `ClientError` where no broker answers."""
        ours = {
            "delivery_timeout_ms": delivery_timeout_ms,
            "request_timeout_ms": max(1, delivery_timeout_ms // 2),
            "max_block_ms": max_block_ms,
            **options,
        }
        defaults = {"linger_ms": 0, "metrics_enabled": False}

        def build(api_version: Any = None) -> Any:
            known = {} if api_version is None else {"api_version": api_version}
            return self._build("producer", KafkaProducer, defaults, {**ours, **known})

        kind = _NobodyTells if options.get("acks") == 0 else Publisher
        return kind(build, delivery_timeout_s=delivery_timeout_ms / 1000, max_block_s=max_block_ms / 1000)
