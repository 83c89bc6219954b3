"""Accepting, delivering and dead-lettering a task are one trace, across the store and a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from kafetrain.service.adapters.sqlite import SqliteStore
from kafetrain.service.adapters.telemetry import ServiceTelemetry
from kafetrain.service.application.acceptance import Acceptance
from kafetrain.service.application.dispatcher import Dispatcher, DispatcherSettings
from kafetrain.service.domain.task import Address, State
from kafetrain.service.ports.destination import Delivery, DeliveryError
from kafetrain.service.ports.store import Filter
from tests.unit.service.tasks import a_task


class OnlyTheDead:
    """Takes nothing but what is for the dead destination."""

    concurrency = 5

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []

    def address(self, given: Mapping[str, Any]) -> Address:
        return given

    def check_message(self, message_data: str) -> None: ...

    def lane(self, address: Address) -> str:
        return str(address["url"])

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def deliver(self, delivery: Delivery) -> int | None:
        self.deliveries.append(delivery)
        if not str(delivery.address["url"]).endswith("/dead"):
            raise DeliveryError("no")
        return None


def test_one_trace_from_the_request_to_the_dead_destination(tmp_path: Path) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry = ServiceTelemetry()
    telemetry._tracer, telemetry._is_traced = provider.get_tracer("test"), lambda: True
    destination = OnlyTheDead()

    async def run() -> None:
        store = SqliteStore(tmp_path / "tasks.db")
        await store.open()
        dispatcher = Dispatcher(store, {"http": destination}, telemetry, DispatcherSettings(10, 0.05, 15))
        acceptance = Acceptance(store, {"http": destination}, telemetry, dispatcher.wake)
        await acceptance.accept([a_task(max_retries=1, base_delay=0.0)])
        dispatcher.start()
        await asyncio.wait_for(_until_it_has_ended(store), 10)
        await dispatcher.stop(1)
        await store.close()

    asyncio.run(run())
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert spans.keys() == {"accept", "deliver", "dead-letter"}
    assert len({span.context.trace_id for span in spans.values()}) == 1
    ids = {trace.format_span_id(spans[name].context.span_id) for name in ("deliver", "dead-letter")}
    assert {str(delivery.trace).split("-")[2] for delivery in destination.deliveries} == ids


async def _until_it_has_ended(store: SqliteStore) -> None:
    while not (await store.page(Filter(state=State.DEAD_LETTERED), 1)).tasks:
        await asyncio.sleep(0.01)
