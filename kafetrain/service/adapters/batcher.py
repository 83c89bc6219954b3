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
_Call = tuple[Sequence[T], int, "asyncio.Future[list[R]]"]


class Batcher(Generic[T, R]):
    """`write` is given items of up to about `limit` in weight, returns as many results, or raises for all of them."""

    def __init__(
        self, write: Callable[[list[T]], Awaitable[list[R]]], limit: int, weight: Callable[[T], int] = lambda item: 1
    ) -> None:
        self._write, self._limit, self._weight = write, limit, weight
        self._waiting: deque[_Call[T, R]] = deque()
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
        await asyncio.sleep(0)  # requests that came together are in one write
        while self._waiting:
            calls, items = self._next()
            try:
                results = await self._write(items)
            except Exception as error:
                _fail(calls, error)
            else:
                # The next write begins before these are told: what they do then takes as long as a write.
                asyncio.get_running_loop().call_soon(_tell, calls, results)

    def _next(self) -> tuple[list[_Call[T, R]], list[T]]:
        calls: list[_Call[T, R]] = []
        items: list[T] = []
        weight = 0
        while self._waiting and (not items or weight + self._waiting[0][1] <= self._limit):
            call = self._waiting.popleft()
            calls.append(call)
            items.extend(call[0])
            weight += call[1]
        return calls, items


def _tell(calls: list[_Call[T, R]], results: list[R]) -> None:
    start = 0
    for part, _, future in calls:
        if not future.done():  # its caller may have been cancelled
            future.set_result(results[start : start + len(part)])
        start += len(part)


def _fail(calls: list[_Call[T, R]], error: Exception) -> None:
    for _, _, future in calls:
        if not future.done():
            future.set_exception(error)
