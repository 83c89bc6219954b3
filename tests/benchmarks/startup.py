"""Starting after much has failed and little is left: the prefix of the redirect topic is purged by then."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from unittest import mock

from kafka import KafkaConsumer as BareConsumer
from kafka import TopicPartition

from kafetrain import KafkaConsumer, Record, RetriableError, Settings
from kafetrain.testing import Broker
from tests.benchmarks.filling import Written, fill, write
from tests.benchmarks.ours import handle_all, settings_for
from tests.benchmarks.report import Block, Scale, spread
from tests.benchmarks.restore import entry_of
from tests.waiting import wait_for

__all__ = ["blocks"]

REDIRECTS, LIVE = 1_000_000, 100
LATER = timedelta(hours=1)


def blocks(broker: Broker, scale: Scale) -> Iterator[Block]:
    rows: list[tuple[str, ...]] = []
    data: dict[str, list[float]] = {}
    redirects = scale.of(REDIRECTS)
    for client in scale.clients:
        topic, settings = broker.create_unique_topic(1, prefix="startup"), settings_for(broker, client)
        prepare(broker, settings, topic, redirects)
        seconds = [start(broker, settings, topic) for _ in range(scale.runs)]
        rows.append((client, *spread(seconds, ".2f")))
        data[client] = seconds
    yield Block(
        "Starting after many redirects",
        f"{redirects:,} locks came and went, and {LIVE} keys are in retry for an hour. Seconds from building the "
        f"consumer to its first handler call, joining the group included.",
        ("client", "min", "median", "max"),
        rows,
        data,
    )


def prepare(broker: Broker, settings: Settings, topic: str, redirects: int) -> None:
    """A group that has committed so many records, all of which were locked once, and purges what that has left."""
    fill(broker, topic, redirects, 10, 1)
    handle_all(settings, topic, redirects)
    redirect = f"redirect-{topic}"
    write(broker, redirect, _came_and_went(settings.group_id, topic, redirects))
    fill(broker, topic, LIVE, 10, 1)
    with (
        mock.patch("kafetrain.retry.loop.PURGE_EVERY_S", 1.0),
        KafkaConsumer.resilient(settings, topic, _fail) as consumer,
        BareConsumer(bootstrap_servers=broker.bootstrap_servers) as reader,
    ):
        place = TopicPartition(redirect, 0)
        wait_for(
            "the prefix is purged",
            lambda: reader.beginning_offsets([place])[place] >= 2 * redirects,
            600,
            check=consumer.check,
        )
        wait_for("they wait", lambda: len(list(consumer.tracker.locks(topic))) == LIVE, check=consumer.check)


def _came_and_went(group: str, topic: str, redirects: int) -> Iterator[Written]:
    for number in range(redirects):
        entry = entry_of(group, topic, number)
        yield entry
        yield entry._replace(value=None)


def _fail(record: Record) -> None:
    raise RetriableError("later", delay=LATER)


def start(broker: Broker, settings: Settings, topic: str) -> float:
    write(broker, topic, [Written(0, b"new", b"")])
    called = threading.Event()
    begin = time.perf_counter()
    with KafkaConsumer.resilient(settings, topic, lambda record: called.set()) as consumer:
        wait_for("it is handled", called.is_set, check=consumer.check)
        took = time.perf_counter() - begin
        if (found := len(list(consumer.tracker.locks(topic)))) != LIVE:
            raise AssertionError(f"{found} of {LIVE} locks were restored")
    return took
