"""The service as a whole: what the web calls, and what is started and stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from loguru import logger

from kafetrain.service.application.acceptance import Acceptance
from kafetrain.service.application.dispatcher import Dispatcher
from kafetrain.service.domain.task import State, Task
from kafetrain.service.ports.destination import Destination
from kafetrain.service.ports.store import StoreError, TaskStore

__all__ = ["BusyError", "CountsKeeper", "Retention", "RetryService", "UnhealthyError"]

HEALTH_TIMEOUT_S = 3.0
COUNTS_EVERY_S, PURGE_EVERY_S = 1.0, 30.0
TRIES = 5


class UnhealthyError(Exception):
    """What is wrong, as one line."""


class BusyError(Exception):
    """The task is being delivered just now, so nothing else may be done with it."""


class CountsKeeper(Protocol):
    """What `RetryService` reads of the telemetry, to store it by minutes."""

    def take_counts(self) -> Mapping[str, int]: ...

    def give_back(self, counts: Mapping[str, int]) -> None: ...


@dataclass(frozen=True)
class Retention:
    """How long tasks are kept after they have ended, in seconds."""

    delivered_s: float
    dead_lettered_s: float


class RetryService:
    def __init__(
        self,
        store: TaskStore,
        destinations: Mapping[str, Destination],
        acceptance: Acceptance,
        dispatcher: Dispatcher,
        counts: CountsKeeper,
        retention: Retention,
    ) -> None:
        self.store, self.acceptance, self.dispatcher = store, acceptance, dispatcher
        self._destinations, self._counts, self._retention = destinations, counts, retention
        self._upkeep: list[asyncio.Task[None]] = []
        self._stopping: asyncio.Task[None] | None = None
        self.is_ready = False

    async def start(self) -> None:
        """Raises `StoreError` or `ConfigurationError` where it cannot work."""
        await self.store.open()
        for destination in self._destinations.values():
            await destination.open()
        self.dispatcher.start()
        self._upkeep = [asyncio.create_task(self._store_counts()), asyncio.create_task(self._purge())]
        self.is_ready = True

    def stop_delivering(self, grace_s: float) -> None:
        """Begin with that while requests are still answered. `stop` waits for it."""
        self.is_ready = False
        if self._stopping is None:
            self._stopping = asyncio.create_task(self.dispatcher.stop(grace_s))

    async def stop(self, grace_s: float) -> None:
        self.stop_delivering(grace_s)
        if self._stopping is not None:
            await self._stopping
        for one in self._upkeep:
            one.cancel()
        await asyncio.gather(*self._upkeep, return_exceptions=True)
        await asyncio.gather(*(one.close() for one in self._destinations.values()), return_exceptions=True)
        try:
            await self._store_counts_once()
        except StoreError:
            pass
        await self.store.close()

    async def check_health(self) -> None:
        """Raises `UnhealthyError`."""
        try:
            await asyncio.wait_for(self.store.check(), HEALTH_TIMEOUT_S)
            self.dispatcher.check()
        except asyncio.TimeoutError:
            raise UnhealthyError(f"the store has not answered within {HEALTH_TIMEOUT_S:g} s") from None
        except (StoreError, RuntimeError) as error:
            raise UnhealthyError(str(error)) from None

    # What an administrator does. Each returns None where there is no such task.

    async def retry_now(self, id: str) -> Task | None:
        """Raises `ValueError` where no delivery will come, `BusyError` where one is under way."""
        return await self._change(id, Task.hurry)

    async def replay(self, id: str) -> Task | None:
        """Raises `ValueError` unless it is dead, `BusyError` where it is being delivered."""
        return await self._change(id, Task.replay)

    async def _change(self, id: str, change: Callable[[Task, float], None]) -> Task | None:
        for _ in range(TRIES):
            found = await self.store.get(id)
            if found is None:
                return None
            now = self.store.now()
            change(found.task, now)
            if found.is_claimed:
                break
            if await self.store.put(found.task, found.revision):
                self.dispatcher.wake(now)
                return found.task
        raise BusyError(f"task {id} is being delivered just now; try again")

    # Upkeep

    async def _store_counts(self) -> None:
        while True:
            await asyncio.sleep(COUNTS_EVERY_S)
            try:
                await self._store_counts_once()
            except StoreError as error:
                logger.debug("counts are stored later: {}", error)

    async def _store_counts_once(self) -> None:
        counts = self._counts.take_counts()
        if not counts:
            return
        try:
            await self.store.add_counts(int(self.store.now() // 60), counts)
        except StoreError:
            self._counts.give_back(counts)
            raise

    async def _purge(self) -> None:
        while True:
            try:
                now = self.store.now()
                before = {
                    State.DELIVERED: now - self._retention.delivered_s,
                    State.DEAD_LETTERED: now - self._retention.dead_lettered_s,
                }
                while await self.store.purge(before):
                    await asyncio.sleep(0.01)  # others have their turn
            except StoreError as error:
                logger.debug("ended tasks are forgotten later: {}", error)
            await asyncio.sleep(PURGE_EVERY_S)
