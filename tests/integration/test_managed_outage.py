"""The broker goes away under a managed service, and comes back: no callback is lost, and the consumer goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from kafetrain.client.ports import ClientError
from kafetrain.managed import ConsumerState, Metadata, ProducerConfig, Registry
from kafetrain.testing import Broker, NoBrokerError, kafka_broker
from tests.integration.journal import Journal
from tests.waiting import wait_for

pytestmark = pytest.mark.kafka


@pytest.fixture
def own_broker() -> Iterator[Broker]:
    try:
        with kafka_broker(allow_embedded=False) as broker:
            if not broker.can_restart:
                pytest.skip(f"a broker of kind {broker.kind!r} cannot be restarted")
            yield broker
    except NoBrokerError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


def test_an_outage_under_load(own_broker: Broker) -> None:
    topic, journal = own_broker.create_unique_topic(1, prefix="orders"), Journal()
    ended: list[tuple[Metadata | None, Exception | None]] = []
    with Registry() as registry:
        registry.consumer(
            job_name="job",
            topic=topic,
            group_id="g",
            bootstrap_servers=own_broker.bootstrap_servers,
            client_options=own_broker.client_options,
            initial_offset="earliest",
        )(journal.recording(lambda record: None))
        producer = registry.register_producer(
            ProducerConfig(
                bootstrap_servers=own_broker.bootstrap_servers,
                client_options=own_broker.client_options,
                enable_async=True,
                max_pending=20,
                max_block="100ms",
                delivery_timeout="3s",
            )
        )
        registry.start_all_consumers()

        def send() -> float:
            began = time.monotonic()
            producer.send_async(topic, b"k", b"x", callback=lambda metadata, error: ended.append((metadata, error)))
            return time.monotonic() - began

        for _ in range(15):
            send()
        assert producer.flush(30)
        assert [error for _, error in ended if error is not None] == []
        wait_for("the consumer has them", lambda: len(journal.offsets("ended")) == 15)

        own_broker.stop()
        slowest = max(send() for _ in range(60))
        assert slowest < 1.5, "its bound is 0.1 s; the rest is for a busy machine"
        wait_for("each has been told of", lambda: len(ended) == 75, timeout=120)
        assert all(error is None for _, error in ended[:15])
        assert all(metadata is None and isinstance(error, ClientError) for metadata, error in ended[15:])

        own_broker.start()
        wait_for("it sends again", lambda: send() >= 0 and producer.flush(10) and ended[-1][1] is None, timeout=120)
        wait_for("the consumer goes on", lambda: len(journal.offsets("ended")) > 15, timeout=120)
        status = registry.status("job", lag=False)
        assert (status.state, status.restarts) == (ConsumerState.RUNNING, 0)
