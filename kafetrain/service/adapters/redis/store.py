"""A `TaskStore` in Redis.

Scripts do all that must be one step, so any number of processes may share it. What a restart of Redis keeps is up to
its `appendonly` and `appendfsync`. Times are Redis's own: how far it is from a clock that nobody sets is measured now
and then.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from redis.exceptions import NoScriptError, RedisError

from kafetrain.service.adapters.batcher import Batcher
from kafetrain.service.adapters.codec import content_of, progress_of, task_of, weight_of
from kafetrain.service.adapters.redis import scripts
from kafetrain.service.adapters.redis.connect import RedisAddress, connect
from kafetrain.service.adapters.redis.scripts import PREFIX, QUEUE
from kafetrain.service.domain.task import State, Task
from kafetrain.service.ports.store import Added, Claim, Claimed, Filter, Found, Page, StoreError

__all__ = ["RedisStore"]

TASKS_PER_SCRIPT = 500
BYTES_PER_CLAIM = 16_000_000
TASKS_PER_READ = 100
LOOKED_AT_PER_PAGE = 2000
KEPT_MINUTES_S = 24 * 3600
CLOCK_AGE_S = 30.0

ADDED = (Added.CREATED, Added.SAME, Added.DIFFERENT)


class RedisStore:
    """`clock`: for tests, in place of Redis's own time."""

    def __init__(self, address: RedisAddress, *, clock: Callable[[], float] | None = None) -> None:
        self.address, self._clock = address, clock
        self._redis: Any = None
        self._calls = _Calls(address.pool_size)
        self._shas: dict[str, str] = {}
        self._offset_s = 0.0
        self._measured_at = float("-inf")
        self._adding = Batcher(self._add, TASKS_PER_SCRIPT, weight_of)
        self._finishing = Batcher(self._finish, TASKS_PER_SCRIPT)

    def now(self) -> float:
        return time.monotonic() + self._offset_s if self._clock is None else self._clock()

    async def open(self) -> None:
        self._redis = connect(self.address)
        try:
            await self._measure_clock()
            await self._call("PING")
        except StoreError as error:
            await self.close()
            raise StoreError(f"failed to create redis client: {error}") from error

    async def close(self) -> None:
        if self._redis is not None:
            await self._redis.aclose()

    async def check(self) -> None:
        try:
            # A write, so that a full or read-only server is told apart from a healthy one.
            await self._call("SET", f"{PREFIX}check", "1", "EX", "60")
        except StoreError as error:
            raise StoreError(f"redis connection failed: {error}") from error

    async def add(self, tasks: Sequence[Task]) -> list[Added]:
        results: list[Added] = []
        for start in range(0, len(tasks), TASKS_PER_SCRIPT):
            results += await self._adding.put(tasks[start : start + TASKS_PER_SCRIPT])
        return results

    async def claim(self, limit: int, lease_s: float) -> Claimed:
        if time.monotonic() > self._measured_at + CLOCK_AGE_S:
            await self._measure_clock()
        token, now = secrets.token_hex(8), self.now()
        count = min(limit, TASKS_PER_SCRIPT)
        next_due, rows = await self._script(scripts.CLAIM, now, count, now + lease_s, token, BYTES_PER_CLAIM)
        claims = [Claim(task_of(content, progress), token) for content, progress in rows]
        return Claimed(claims, float(next_due) if next_due else None)

    async def renew(self, claims: Sequence[Claim], lease_s: float) -> None:
        until = self.now() + lease_s
        for start in range(0, len(claims), TASKS_PER_SCRIPT):
            part = claims[start : start + TASKS_PER_SCRIPT]
            ours = [value for claim in part for value in (claim.task.id, claim.token, _queue_of(claim.task))]
            await self._script(scripts.RENEW, until, *ours)

    async def finish(self, claims: Sequence[Claim]) -> None:
        for start in range(0, len(claims), TASKS_PER_SCRIPT):
            await self._finishing.put(claims[start : start + TASKS_PER_SCRIPT])

    async def get(self, id: str) -> Found | None:
        content, progress, token = await self._call("HMGET", f"{PREFIX}task:{id}", "c", "p", "k")
        if content is None:
            return None
        task = task_of(content, progress)
        is_claimed = False
        if token:
            queue = scripts.PRIORITY if task.is_priority else QUEUE
            lease_end = await self._call("ZSCORE", queue, id)
            is_claimed = lease_end is not None and float(lease_end) > self.now()
        return Found(task, progress, is_claimed)

    async def put(self, task: Task, revision: str) -> bool:
        written = _written(task)
        return bool(await self._script(scripts.PUT, task.id, self.now(), revision, *written))

    async def delete(self, id: str) -> bool:
        return bool(await self._script(scripts.DELETE, id))

    async def page(self, filter: Filter, limit: int, cursor: str | None = None) -> Page:
        states = tuple(State) if filter.state is None else (filter.state,)
        state, score, skip = _place_of(cursor, states)
        is_filtered = (filter.client_id, filter.source, filter.search) != (None, None, None)
        to_look_at = LOOKED_AT_PER_PAGE if is_filtered else limit
        found: list[Task] = []
        while True:
            # `skip` entries of this score have been looked at before.
            limits = ("LIMIT", str(skip), str(to_look_at))
            index = f"{PREFIX}state:{state.value}"
            flat = await self._call("ZREVRANGEBYSCORE", index, score, "-inf", "WITHSCORES", *limits)
            entries = _pairs(flat)
            if filter.search is not None:
                tasks = await self._tasks([id for id, _ in entries if filter.search in id])
            else:
                tasks = await self._tasks([id for id, _ in entries])
            for id, at in entries:
                skip = skip + 1 if at == score else 1
                score = at
                task = tasks.get(id)
                if task is None or not _matches(task, filter):
                    continue
                found.append(task)
                if len(found) == limit:
                    return Page(found, f"{state.value}:{score}:{skip}")
            to_look_at -= len(entries)
            if to_look_at <= 0:
                return Page(found, f"{state.value}:{score}:{skip}")
            if state is states[-1]:
                return Page(found, None)
            state, score, skip = states[states.index(state) + 1], "+inf", 0

    async def counts(self) -> Mapping[State, int]:
        return {state: int(await self._call("ZCARD", f"{PREFIX}state:{state.value}")) for state in State}

    async def purge(self, before: Mapping[State, float]) -> int:
        values = [value for state, at in before.items() for value in (state.value, at)]
        return int(await self._script(scripts.PURGE, *values))

    async def add_counts(self, minute: int, counts: Mapping[str, int]) -> None:
        key = f"{PREFIX}minute:{minute}"
        async with self._calls, self._redis.pipeline(transaction=False) as pipe:
            for name, count in counts.items():
                pipe.hincrby(key, name, count)
            pipe.expire(key, KEPT_MINUTES_S)
            await pipe.execute()

    async def history(self, since_minute: int) -> Mapping[int, Mapping[str, int]]:
        minutes = range(since_minute, int(self.now() // 60) + 1)
        async with self._calls, self._redis.pipeline(transaction=False) as pipe:
            for minute in minutes:
                pipe.hgetall(f"{PREFIX}minute:{minute}")
            rows = await pipe.execute()
        return {
            minute: {name: int(count) for name, count in row.items()}
            for minute, row in zip(minutes, rows, strict=True)
            if row
        }

    # Batches

    async def _add(self, tasks: list[Task]) -> list[Added]:
        values: list[Any] = []
        for task in tasks:
            state, queue, due, _, progress = _written(task)
            values += (task.id, content_of(task), progress, state, queue, due, task.created_at)
        return [ADDED[number] for number in await self._script(scripts.ADD, *values)]

    async def _finish(self, claims: list[Claim]) -> list[None]:
        values: list[Any] = []
        for claim in claims:
            values += (claim.task.id, claim.token, *_written(claim.task))
        await self._script(scripts.FINISH, *values)
        return [None] * len(claims)

    # Calls

    async def _tasks(self, ids: Sequence[str]) -> dict[str, Task]:
        """Without their messages, which together may be more than there is memory."""
        found: dict[str, Task] = {}
        for start in range(0, len(ids), TASKS_PER_READ):
            part = ids[start : start + TASKS_PER_READ]
            async with self._calls, self._redis.pipeline(transaction=False) as pipe:
                for id in part:
                    pipe.hmget(f"{PREFIX}task:{id}", "c", "p")
                rows = await pipe.execute()
            for id, row in zip(part, rows, strict=True):
                if row[0] is not None:
                    found[id] = replace(task_of(*row), message_data="")
        return found

    async def _measure_clock(self) -> None:
        before = time.monotonic()
        seconds, micros = _time_of(await self._call("TIME"))
        self._offset_s = seconds + micros / 1e6 - (before + time.monotonic()) / 2
        self._measured_at = time.monotonic()

    async def _script(self, script: str, *values: Any) -> Any:
        async with self._calls:
            sha = self._shas.get(script)
            if sha is not None:
                try:
                    return await self._redis.evalsha(sha, 1, QUEUE, *values)
                except NoScriptError:  # it was restarted, or is another one now
                    pass
            result = await self._redis.eval(script, 1, QUEUE, *values)
            self._shas[script] = _sha_of(script)
            return result

    async def _call(self, command: str, *values: Any) -> Any:
        async with self._calls:
            if command == "TIME" and self.address.is_cluster:
                return await self._redis.execute_command(command, target_nodes="random")
            return await self._redis.execute_command(command, *values)


class _Calls:
    """As many at a time as there are connections. Errors of the client as `StoreError`, on one line."""

    def __init__(self, most: int) -> None:
        self._free = asyncio.Semaphore(most)

    async def __aenter__(self) -> None:
        await self._free.acquire()

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._free.release()
        if isinstance(error, RedisError | OSError | asyncio.TimeoutError):
            raise StoreError(str(error).split("\n", 1)[0] or type(error).__name__) from error


def _sha_of(script: str) -> str:
    import hashlib

    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


def _queue_of(task: Task) -> str:
    if task.state.is_final:
        return "none"
    return "priority" if task.is_priority else "normal"


def _written(task: Task) -> tuple[str, str, float, float, str]:
    """State, queue, due time, place in the index of its state, progress."""
    order = task.due_at if task.state.is_final else task.created_at
    return task.state.value, _queue_of(task), task.due_at, order, progress_of(task)


def _matches(task: Task, filter: Filter) -> bool:
    return filter.client_id in (None, task.client_id) and filter.source in (None, task.source)


def _pairs(flat: Any) -> list[tuple[str, str]]:
    if flat and isinstance(flat[0], list | tuple):
        return [(id, repr(float(at))) for id, at in flat]
    return [(flat[i], repr(float(flat[i + 1]))) for i in range(0, len(flat), 2)]


def _time_of(answer: Any) -> tuple[float, float]:
    if isinstance(answer, Mapping):  # a cluster names the node
        answer = next(iter(answer.values()))
    return float(answer[0]), float(answer[1])


def _place_of(cursor: str | None, states: tuple[State, ...]) -> tuple[State, str, int]:
    if cursor is None:
        return states[0], "+inf", 0
    try:
        name, score, skip = cursor.split(":")
        state = State(name)
        is_number = score == "+inf" or math.isfinite(float(score))
        if state not in states or not is_number or not 0 <= int(skip) < 2**31:
            raise ValueError
    except ValueError:
        raise ValueError("cursor is none that this service gave") from None
    return state, score, int(skip)
