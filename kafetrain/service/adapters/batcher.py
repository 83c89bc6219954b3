"""Group commit: while one write is under way, others gather; then one write takes them all.

A single caller waits no longer for it, and a thousand share one fsync or one round trip.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

__all__ = ["Batcher"]

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """`write` is given items of up to about `limit` in weight, returns as many results, or raises for all of them."""

    def __init__(
        self, write: Callable[[list[T]], Awaitable[list[R]]], limit: int, weight: Callable[[T], int] = lambda item: 1
    ) -> None:
        self._write, self._limit, self._weight = write, limit, weight
        self._waiting: deque[tuple[Sequence[T], int, asyncio.Future[list[R]]]] = deque()
        self._running: asyncio.Task[None] | None = None

    async def put(self, items: Sequence[T]) -> list[R]:
        """Their results, once they are written. Items of one call are in one write."""
        if not items:
            return []
        future: asyncio.Future[list[R]] = asyncio.get_running_loop().create_future()
        self._waiting.append((items, sum(map(self._weight, items)), future))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        while self._waiting:
            group: list[tuple[Sequence[T], asyncio.Future[list[R]]]] = []
            items: list[T] = []
            weight = 0
            await asyncio.sleep(0)  # requests that came together are in one write
            while self._waiting and (not items or weight + self._waiting[0][1] <= self._limit):
                part, its_weight, future = self._waiting.popleft()
                group.append((part, future))
                items.extend(part)
                weight += its_weight
            try:
                results = await self._write(items)
            except Exception as error:
                for _, future in group:
                    if not future.done():  # its caller may have been cancelled
                        future.set_exception(error)
                continue
            start = 0
            for part, future in group:
                if not future.done():
                    future.set_result(results[start : start + len(part)])
                start += len(part)
