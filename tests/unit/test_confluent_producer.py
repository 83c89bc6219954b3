"""The producer of the confluent client without a broker: what it does where the library gives up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from kafetrain.client.confluent_producer import ConfluentProducer
from kafetrain.client.ports import ClientError, OutgoingRecord, TopicDescription
from tests.waiting import wait_for

FATAL = KafkaError(KafkaError._FATAL, "the sequence has a gap", fatal=True)


class FakeLibrary:
    """As librdkafka: what is wrong for good is raised once, by whatever serves callbacks."""

    def __init__(self) -> None:
        self.failure: KafkaError | None = None
        self._open: list[Callable[[Any, Any], None]] = []
        self._mutex = threading.Lock()

    def produce(self, topic: str, *_: Any, on_delivery: Callable[[Any, Any], None], **__: Any) -> None:
        with self._mutex:
            self._open.append(on_delivery)

    def poll(self, timeout_s: float) -> int:
        self._raise()
        with self._mutex:
            ended, self._open = self._open, []
        for on_delivery in ended:
            on_delivery(None, SimpleNamespace(offset=lambda: 7))
        threading.Event().wait(0.001)
        return len(ended)

    def purge(self) -> None:
        pass

    def flush(self, timeout_s: float) -> int:
        self._raise()
        return 0

    def _raise(self) -> None:
        failure, self.failure = self.failure, None
        if failure is not None:
            raise KafkaException(failure)


class Bench:
    def __init__(self) -> None:
        self.built: list[FakeLibrary] = []
        topics = {"t": TopicDescription("t", 1, 1)}
        admin: Any = SimpleNamespace(describe_topics=lambda names: topics, close=lambda: None)
        self.producer = ConfluentProducer(self._build, lambda: admin, max_block_s=5)

    def _build(self) -> FakeLibrary:
        self.built.append(FakeLibrary())
        return self.built[-1]

    def send(self) -> int:
        return self.producer.send(OutgoingRecord("t", 0, b"k", b"v")).result(10)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.producer.close(timedelta(0))


def test_after_a_fatal_error_another_producer_of_the_library_sends_on(bench: Bench) -> None:
    assert bench.send() == 7
    bench.built[0].failure = FATAL
    wait_for("it is replaced", lambda: len(bench.built) == 2)
    assert bench.send() == 7


def test_a_fatal_error_does_not_keep_it_from_closing(bench: Bench) -> None:
    bench.send()
    flush = bench.built[0].flush

    def fail_once(timeout_s: float) -> int:
        bench.built[0].flush = flush  # type: ignore[method-assign]  # as the library does
        raise KafkaException(FATAL)

    bench.built[0].flush = fail_once  # type: ignore[method-assign]  # as the library does
    bench.producer.close(timedelta(0))
    with pytest.raises(ClientError, match="closed"):
        bench.send()
