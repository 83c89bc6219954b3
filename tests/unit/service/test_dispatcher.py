"""The dispatcher's bounds on what it has in hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from kafetrain.service.adapters.sqlite import SqliteStore
from kafetrain.service.adapters.sqlite import store as sqlite_store
from kafetrain.service.adapters.telemetry import ServiceTelemetry
from kafetrain.service.application import dispatcher as dispatching
from kafetrain.service.application.dispatcher import Dispatcher, DispatcherSettings
from kafetrain.service.domain.task import Address, State
from kafetrain.service.ports.destination import Delivery
from tests.unit.service.tasks import a_task


class Gate:
    """Takes everything, once it is open."""

    concurrency = 100

    def __init__(self) -> None:
        self.is_open = asyncio.Event()

    def address(self, given: Mapping[str, Any]) -> Address:
        return given

    def check_message(self, message_data: str) -> None: ...

    def lane(self, address: Address) -> str:
        return "gate"

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def deliver(self, delivery: Delivery) -> int | None:
        await self.is_open.wait()
        return None


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def test_large_messages_in_hand_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_store, "CHARACTERS_PER_CLAIM", 100)
    monkeypatch.setattr(dispatching, "MOST_HELD_CHARACTERS", 350)

    async def run() -> None:
        store, gate = SqliteStore(tmp_path / "tasks.db"), Gate()
        await store.open()
        now = store.now()
        await store.add([a_task(f"t{i}", now=now, base_delay=0.0, message_data="x" * 100) for i in range(20)])
        dispatcher = Dispatcher(store, {"http": gate}, ServiceTelemetry(), DispatcherSettings(1000, 0.05, 15))
        dispatcher.start()
        await asyncio.wait_for(until(lambda: dispatcher.in_flight >= 4), 60)
        await store.check()  # a round trip, in which another claim would have been made
        assert dispatcher.in_flight == 4
        gate.is_open.set()
        while (await store.counts())[State.DELIVERED] < 20:
            await asyncio.sleep(0.005)
        await dispatcher.stop(1)
        await store.close()

    asyncio.run(asyncio.wait_for(run(), 90))
