"""Calls share writes, and each hears of its own items."""

from __future__ import annotations

import asyncio

import pytest

from kafetrain.service.adapters.batcher import Batcher


class Writes:
    """What was written, each write ending when the test says so."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.ends: list[asyncio.Future[None]] = []
        self.begun = asyncio.Event()

    async def write(self, items: list[int]) -> list[int]:
        end = asyncio.get_running_loop().create_future()
        self.groups.append(items)
        self.ends.append(end)
        self.begun.set()
        await end
        return [item * 10 for item in items]

    async def next(self) -> asyncio.Future[None]:
        await self.begun.wait()
        self.begun.clear()
        return self.ends[-1]


def test_what_comes_during_a_write_is_in_the_next_which_begins_before_anybody_is_told() -> None:
    async def run() -> None:
        writes = Writes()
        batcher = Batcher(writes.write, limit=4)
        first = [asyncio.create_task(batcher.put(items)) for items in ([1], [2, 3])]
        end = await writes.next()
        later = [asyncio.create_task(batcher.put(items)) for items in ([4], [5, 6], [7, 8])]
        await asyncio.sleep(0)
        told_by_then: list[int] = []
        first[0].add_done_callback(lambda _: told_by_then.append(len(writes.groups)))
        end.set_result(None)
        assert await asyncio.gather(*first) == [[10], [20, 30]]
        assert told_by_then == [2]
        (await writes.next()).set_result(None)
        (await writes.next()).set_result(None)
        assert await asyncio.gather(*later) == [[40], [50, 60], [70, 80]]
        assert writes.groups == [[1, 2, 3], [4, 5, 6], [7, 8]]  # a call is never divided

    asyncio.run(run())


def test_a_write_that_fails_fails_its_callers_and_no_other() -> None:
    async def run() -> None:
        writes = Writes()
        batcher = Batcher(writes.write, limit=4)
        first = asyncio.create_task(batcher.put([1]))
        end = await writes.next()
        second, gone = asyncio.create_task(batcher.put([2])), asyncio.create_task(batcher.put([3]))
        await asyncio.sleep(0)
        end.set_exception(OSError("no"))
        with pytest.raises(OSError, match="no"):
            await first
        gone.cancel()
        (await writes.next()).set_result(None)
        assert await second == [20]
        assert await batcher.put([]) == []

    asyncio.run(run())
