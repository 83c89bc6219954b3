"""What layer 1 does with an application's own kafka-python consumer: pause, seek, resume, and offsets to commit."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from kafka import TopicPartition as KafkaTopicPartition
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.structs import OffsetAndMetadata

from kafetrain.client.kafka_python_workarounds import mend_fetching
from kafetrain.record import Record

__all__ = ["Deferrals", "accept_listener", "next_offsets"]


def accept_listener(listener: type) -> None:
    """Make kafka-python's `subscribe` take instances of `listener`, which need not import kafka-python then."""
    ConsumerRebalanceListener.register(listener)


def next_offsets(record: Record, metadata: str) -> Mapping[Any, Any]:
    """The argument for kafka-python's `commit` after this record."""
    place = KafkaTopicPartition(record.topic, record.partition)
    return {place: OffsetAndMetadata(record.offset + 1, metadata, -1)}


class Deferrals:
    """Partitions of applications' consumers that wait for a record's due time. Any thread."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()  # guards _timers only; nothing else is taken inside
        self._timers: dict[tuple[int, str, int], threading.Timer] = {}

    def defer(self, consumer: Any, record: Record, wait: timedelta) -> None:
        """Pause the record's partition and seek back to it; resume it after `wait`.

        Call it on the thread that polls. Pausing and resuming only set a flag, so the timer may do that.
        """
        place = KafkaTopicPartition(record.topic, record.partition)
        _mend_pausing(consumer)
        consumer.pause(place)
        consumer.seek(place, record.offset)
        key = (id(consumer), record.topic, record.partition)

        def resume() -> None:
            with self._mutex:
                self._timers.pop(key, None)
            # IllegalStateError or KeyError: the partition has gone to another instance, which starts it unpaused.
            try:
                consumer.resume(place)
            except Exception:
                pass

        timer = threading.Timer(max(0.0, wait.total_seconds()), resume)
        timer.daemon = True
        with self._mutex:
            if (earlier := self._timers.pop(key, None)) is not None:
                earlier.cancel()
            self._timers[key] = timer
        timer.start()

    def close(self) -> None:
        """Forget what waits; those partitions stay paused."""
        with self._mutex:
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()


def _mend_pausing(consumer: Any) -> None:
    if not getattr(consumer, "_kafetrain_mended", False):
        mend_fetching(consumer)
        consumer._kafetrain_mended = True
