"""The thread that owns a librdkafka consumer, on a stand-in for that."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from kafetrain.client.confluent_consumer import ConfluentConsumer
from kafetrain.client.ports import ClientError, Committed
from kafetrain.record import TopicPartition
from tests.waiting import wait_for


class Broken:
    """The library's consumer, as it is after a bug."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def subscribe(self, *_: object, **__: object) -> None: ...

    def poll(self, _: float) -> Any:
        raise self.error

    def close(self) -> None: ...


def test_nothing_is_asked_again_of_a_consumer_that_has_failed() -> None:
    """Who closes tries a refused commit for seconds, and each time it would be refused at once."""
    events: Any = None
    build_admin: Any = None
    consumer = ConfluentConsumer(Broken(RuntimeError("no more")), "g", build_admin)
    consumer.subscribe(["orders"], events)
    with pytest.raises(ClientError, match="polling"):
        wait_for("it has failed", lambda: consumer.poll(timedelta(seconds=1)))
    failed = "committing for group g: the consumer has failed: RuntimeError: no more"
    with pytest.raises(ClientError, match=failed) as caught:
        consumer.commit({TopicPartition("orders", 0): Committed(7)})
    assert not caught.value.retriable


def test_a_reader_that_has_failed_says_so_for_good() -> None:
    """Who would try on with what may pass, waits for ever: nobody reads for it any more."""
    build_admin: Any = None
    reader = ConfluentConsumer(Broken(KafkaException(KafkaError(KafkaError._TRANSPORT))), None, build_admin)
    reader.assign({TopicPartition("retry-orders", 0): 7})
    for _ in range(2):
        with pytest.raises(ClientError, match="polling for the reader: the consumer has failed: _TRANSPORT") as caught:
            wait_for("it has failed", lambda: reader.poll(timedelta(seconds=1)))
        assert not caught.value.retriable
        reader.assign({TopicPartition("retry-orders", 1): 7})
    reader.close()
