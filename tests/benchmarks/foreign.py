"""FastStream on the healthy workload, message by message, as its tutorial has it: what a framework costs."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from kafetrain.testing import Broker
from tests.benchmarks.bare import run_bare
from tests.benchmarks.counter import Counter
from tests.benchmarks.filling import fill
from tests.benchmarks.healthy import PARTITIONS, run_kafetrain
from tests.benchmarks.report import Block, Scale, spread

__all__ = ["blocks"]

RECORDS = 100_000
OURS = {"confluent": "confluent", "aiokafka": "kafka-python"}
"""FastStream's clients, and those of kafetrain that are measured beside them."""


def blocks(broker: Broker, scale: Scale) -> Iterator[Block]:
    try:
        import faststream  # noqa: F401  # optional
    except ImportError:
        raise SystemExit(
            "the benchmark `foreign` needs FastStream: pip install 'faststream[confluent,kafka]'"
        ) from None
    records = scale.of(RECORDS)
    topic = broker.create_unique_topic(PARTITIONS, prefix="foreign")
    fill(broker, topic, records, 100, PARTITIONS)
    rows: list[tuple[str, ...]] = []
    data: dict[str, list[float]] = {}
    for theirs, client in OURS.items():
        if client not in scale.clients:
            continue
        sides: dict[str, Callable[[], Counter]] = {
            f"FastStream, {theirs}": partial(_with_faststream, broker, topic, records, theirs),
            f"kafetrain, {client}": partial(run_kafetrain, broker, topic, records, client),
            f"bare loop, {client}": partial(run_bare, broker, topic, records, client),
        }
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(scale.runs):
            for name, run in sides.items():
                rates[name].append(run().rate)
        rows += [(name, *spread(values, ",.0f")) for name, values in rates.items()]
        data |= rates
    yield Block(
        "Beside FastStream",
        f"{records:,} records of 100 B in {PARTITIONS} partitions, a handler that does nothing and is called for each; "
        f"FastStream with its defaults, which commit by themselves and retry nothing. Records a second, first handler "
        f"call to last.",
        ("", "min", "median", "max"),
        rows,
        data,
    )


def _with_faststream(broker: Broker, topic: str, records: int, client: str) -> Counter:
    return asyncio.run(_faststream(broker, topic, records, client))


async def _faststream(broker: Broker, topic: str, records: int, client: str) -> Counter:
    counter = Counter(records)
    made = _broker(client, broker.bootstrap_servers)

    @made.subscriber(topic, group_id=f"fs-{uuid.uuid4().hex[:8]}", auto_offset_reset="earliest")  # type: ignore[untyped-decorator]  # of either client
    async def handle(body: bytes) -> None:
        counter(body)

    await made.start()
    try:
        while not counter.done.is_set():
            await asyncio.sleep(0.05)
    finally:
        await made.stop()
    return counter


def _broker(client: str, servers: str) -> Any:
    if client == "confluent":
        from faststream.confluent import KafkaBroker as ConfluentBroker  # optional

        return ConfluentBroker(servers, logger=None)
    from faststream.kafka import KafkaBroker  # optional

    return KafkaBroker(servers, logger=None)
