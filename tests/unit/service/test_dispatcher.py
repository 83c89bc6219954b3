"""The dispatcher: what it has in hand, and what it leaves alone."""

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
from kafetrain.service.ports.destination import Delivery, DeliveryError
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


class Away(Gate):
    """Nobody is there."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[str] = []

    async def deliver(self, delivery: Delivery) -> int | None:
        self.keys.append(delivery.key)
        raise DeliveryError("no connection", reached=False)


def test_what_cannot_be_reached_is_left_alone_except_for_the_last_delivery(tmp_path: Path) -> None:
    async def run() -> None:
        store, away = SqliteStore(tmp_path / "tasks.db"), Away()
        await store.open()
        await store.add([a_task(now=store.now(), base_delay=0.0, max_retries=40)])
        dispatcher = Dispatcher(store, {"http": away}, ServiceTelemetry(), DispatcherSettings(10, 0.05, 15))
        dispatcher.start()
        while (await store.counts())[State.DEAD] < 1:
            await asyncio.sleep(0.005)
        await dispatcher.stop(1)
        found = await store.get("t1")
        await store.close()
        assert found is not None
        assert away.keys[:5] == [f"t1|{number}" for number in range(1, 6)]
        assert "t1|40" in away.keys
        errors = [one.error for one in found.task.attempts if one.to == "destination"]
        assert len(errors) == 40
        assert errors.count("not tried, it was unreachable just now: no connection") >= 10

    asyncio.run(asyncio.wait_for(run(), 90))
