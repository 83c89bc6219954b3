"""Accepting tasks: checked in full before anything is stored, and stored before anybody is told so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kafetrain.service.domain.task import Address, Task
from kafetrain.service.ports.destination import Destination, RefusedError
from kafetrain.service.ports.store import Added, TaskStore
from kafetrain.service.ports.telemetry import Telemetry

__all__ = ["Acceptance"]


class Acceptance:
    """`wake` is told when the first of new tasks is due."""

    def __init__(
        self,
        store: TaskStore,
        destinations: Mapping[str, Destination],
        telemetry: Telemetry,
        wake: Callable[[float], None],
    ) -> None:
        self._store, self._destinations = store, destinations
        self._telemetry, self._wake = telemetry, wake

    def check(
        self, kind: str, message_data: str, destination: Mapping[str, Any], dead_destination: Mapping[str, Any]
    ) -> tuple[Address, Address]:
        """The addresses in their normal form. Raises `ValueError`, or `RefusedError`."""
        chosen = self._destinations.get(kind)
        if chosen is None:
            raise ValueError(f"destination_type {kind!r} is none of {', '.join(sorted(self._destinations))}")
        chosen.check_message(message_data)
        return self._address(chosen, "destination", destination), self._address(
            chosen, "dead_destination", dead_destination
        )

    async def accept(self, tasks: Sequence[Task]) -> list[Added]:
        """Store them; each is on its way when this returns. Raises `StoreError`: nobody knows, ask again."""
        with self._telemetry.span("accept", None, **{"messaging.batch.message_count": len(tasks)}) as trace:
            now = self._store.now()
            for task in tasks:
                task.accept(now)
                task.trace = trace
            results = await self._store.add(tasks)
        created = [task.due_at for task, added in zip(tasks, results, strict=True) if added is Added.CREATED]
        if created:
            self._telemetry.created(len(created))
            self._wake(min(created))
        return results

    def _address(self, chosen: Destination, field: str, given: Mapping[str, Any]) -> Address:
        try:
            return chosen.address(given)
        except ValueError as error:
            raise ValueError(f"{field}.{error}") from None
        except RefusedError as error:
            raise RefusedError(f"{field}: {error}") from None
