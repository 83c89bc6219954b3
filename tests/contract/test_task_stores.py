"""One suite, every store: what the service relies on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from kafetrain.service.adapters.redis import RedisStore
from kafetrain.service.adapters.redis import store as redis_store
from kafetrain.service.adapters.redis.connect import RedisAddress
from kafetrain.service.adapters.sqlite import SqliteStore
from kafetrain.service.adapters.sqlite import store as sqlite_store
from kafetrain.service.domain.backoff import Backoff
from kafetrain.service.domain.task import Attempt, State, Task
from kafetrain.service.ports.store import Added, Filter, TaskStore
from tests.contract.stores import Clock
from tests.redis_server import RedisServer
from tests.unit.service.tasks import a_task

pytest_plugins = ["tests.contract.stores"]
pytestmark = pytest.mark.anyio
ODD_ID = 'with "quotes", {braces}, a:colon, ünï 🎉 and \\u0000'
ODD = ODD_ID + "\x00 NUL, \n lines"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["sqlite", "redis", "redis cluster"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[TaskStore]:
    made: TaskStore
    if request.param == "sqlite":
        made = SqliteStore(tmp_path / "tasks.db", clock=clock)
    else:
        is_cluster = request.param == "redis cluster"
        server: RedisServer = request.getfixturevalue("redis_cluster" if is_cluster else "redis_server")
        with server.client() as client:
            client.flushall()
        made = RedisStore(RedisAddress((server.address,), is_cluster=is_cluster), clock=clock)
    await made.open()
    yield made
    await made.close()


def delivered(task: Task, now: float) -> Task:
    task.increment_attempt()
    task.succeeded(Attempt(task.attempt, "destination", now, 0.01, 200), now)
    return task


async def test_a_task_comes_back_as_it_was(store: TaskStore, clock: Clock) -> None:
    task = a_task(
        ODD_ID,
        now=clock(),
        message_data=ODD,
        backoff=Backoff("linear", 60.0, 0.1),
        destination={"host": "h", "port": 1},
    )
    task.trace = "00-aa-bb-01"
    assert await store.add([task]) == [Added.CREATED]
    found = await store.get(ODD_ID)
    assert found is not None
    assert (found.task, found.is_claimed) == (task, False)
    assert await store.get("another") is None


async def test_the_same_again_changes_nothing(store: TaskStore, clock: Clock) -> None:
    first = a_task(now=clock())
    await store.add([first])
    clock.time += 5
    again, other = a_task(now=clock()), a_task(now=clock(), message_data="{}")
    new, new_again, new_other = a_task("n", now=clock()), a_task("n", now=clock()), a_task("n", max_retries=1)
    assert await store.add([again, other, new, new_again, new_other]) == [
        Added.SAME,
        Added.DIFFERENT,
        Added.CREATED,
        Added.SAME,
        Added.DIFFERENT,
    ]
    found = await store.get(first.id)
    assert found is not None
    assert found.task == first
    assert (await store.counts())[State.SCHEDULED] == 2


async def test_only_what_is_due_is_claimed_the_longest_due_first(store: TaskStore, clock: Clock) -> None:
    for id, delay in (("b", 2.0), ("c", 3.0), ("a", 1.0)):
        await store.add([a_task(id, now=clock(), base_delay=delay)])
    assert (await store.claim(10, 15)).claims == []
    assert (await store.claim(10, 15)).next_due == pytest.approx(clock() + 1, abs=0.01)
    clock.time += 2.5
    claimed = await store.claim(10, 15)
    assert [claim.task.id for claim in claimed.claims] == ["a", "b"]
    assert claimed.next_due == pytest.approx(clock() + 0.5, abs=0.01)


async def test_a_claimed_task_is_nobody_elses_until_its_lease_ends(store: TaskStore, clock: Clock) -> None:
    await store.add([a_task(now=clock(), base_delay=0.0)])
    [first] = (await store.claim(10, 15)).claims
    clock.time += 14.9
    assert (await store.claim(10, 15)).claims == []
    found = await store.get("t1")
    assert found is not None
    assert found.is_claimed
    await store.renew([first], 15)
    clock.time += 14.9
    assert (await store.claim(10, 15)).claims == []
    clock.time += 0.2
    [second] = (await store.claim(10, 15)).claims
    assert second.task == first.task
    assert second.token != first.token


async def test_what_comes_with_an_old_token_changes_nothing(store: TaskStore, clock: Clock) -> None:
    await store.add([a_task(now=clock(), base_delay=0.0)])
    [old] = (await store.claim(10, 15)).claims
    clock.time += 16
    [new] = (await store.claim(10, 15)).claims
    old.task = delivered(old.task, clock())
    await store.finish([old])
    await store.renew([old], 1000)
    clock.time += 15.1
    [third] = (await store.claim(10, 15)).claims
    assert third.task == new.task
    assert third.task.state is State.SCHEDULED


async def test_a_finished_task_is_due_when_it_says_or_never(store: TaskStore, clock: Clock) -> None:
    await store.add([a_task(id, now=clock(), base_delay=0.0) for id in ("again", "done", "gone")])
    claims = {claim.task.id: claim for claim in (await store.claim(10, 15)).claims}
    delivered(claims["done"].task, clock())
    delivered(claims["gone"].task, clock())
    claims["again"].task.due_at = clock() + 40
    assert await store.delete("gone")
    await store.finish(list(claims.values()))
    assert await store.get("gone") is None
    claimed = await store.claim(10, 15)
    assert not claimed.claims
    assert claimed.next_due == pytest.approx(clock() + 40, abs=0.01)
    clock.time += 41
    [claim] = (await store.claim(10, 15)).claims
    assert claim.task.id == "again"
    counts = await store.counts()
    assert (counts[State.SCHEDULED], counts[State.DELIVERED]) == (1, 1)


async def test_priority_goes_first_and_neither_starves(store: TaskStore, clock: Clock) -> None:
    await store.add([a_task(f"n{i}", now=clock() - 60, base_delay=0.0) for i in range(20)])
    await store.add([a_task(f"p{i}", now=clock(), base_delay=0.0, is_priority=True) for i in range(20)])

    async def claimed(limit: int) -> str:
        return "".join(claim.task.id[0] for claim in (await store.claim(limit, 600)).claims)

    assert await claimed(1) == "p"
    assert await claimed(8) == "ppppppnn"
    assert await claimed(24) == "p" * 13 + "n" * 11
    assert await claimed(24) == "n" * 7


async def test_large_tasks_are_claimed_few_at_a_time_and_neither_kind_starves(
    store: TaskStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand of them together may be more than a process or a store can hold."""
    monkeypatch.setattr(sqlite_store, "CHARACTERS_PER_CLAIM", 160_000)
    monkeypatch.setattr(redis_store, "BYTES_PER_CLAIM", 160_000)
    large = '"' * 20_000
    for number in range(10):
        normal = a_task(f"n{number}", now=clock(), base_delay=0.0, message_data=large)
        priority = a_task(f"p{number}", now=clock(), base_delay=0.0, message_data=large, is_priority=True)
        assert await store.add([normal, priority]) == [Added.CREATED] * 2
    claimed: list[list[str]] = []
    while claims := (await store.claim(100, 600)).claims:
        claimed.append([claim.task.id[0] for claim in claims])
        assert {claim.task.message_data for claim in claims} == {large}
    assert sum(map(len, claimed)) == 20
    assert len(claimed[0]) <= 6
    assert set(claimed[0]) == {"p", "n"}


async def test_progress_is_put_only_as_it_was_found(store: TaskStore, clock: Clock) -> None:
    await store.add([a_task(now=clock())])
    found = await store.get("t1")
    assert found is not None
    found.task.hurry(clock())
    assert await store.put(found.task, found.revision)
    assert not await store.put(replace(found.task, due_at=clock() + 1), found.revision)
    [claim] = (await store.claim(10, 15)).claims
    claimed = await store.get("t1")
    assert claimed is not None
    assert not await store.put(claimed.task, claimed.revision)
    await store.finish([claim])
    assert await store.put(delivered(claimed.task, clock()), claimed.revision)
    assert (await store.claim(10, 15)).claims == []


async def test_a_deleted_task_is_gone(store: TaskStore, clock: Clock) -> None:
    await store.add([a_task(now=clock(), base_delay=0.0)])
    assert await store.delete("t1")
    assert not await store.delete("t1")
    assert (await store.claim(10, 15)).claims == []
    assert sum((await store.counts()).values()) == 0
    assert await store.add([a_task(now=clock(), max_retries=1)]) == [Added.CREATED]


async def all_pages(store: TaskStore, filter: Filter, limit: int) -> list[str]:
    ids: list[str] = []
    cursor = None
    while True:
        page = await store.page(filter, limit, cursor)
        assert len(page.tasks) <= limit
        ids += [task.id for task in page.tasks]
        if page.cursor is None:
            return ids
        cursor = page.cursor


async def test_pages_hold_every_task_that_matches_once(store: TaskStore, clock: Clock) -> None:
    # Many of one moment: their order must not depend on time alone.
    for start in range(0, 60, 20):
        clock.time += 1
        await store.add(
            [
                a_task(f"t{i:02}", now=clock(), base_delay=0.0, client_id=f"c{i % 3}", source=f"s{i % 2}")
                for i in range(start, start + 20)
            ]
        )
    claims = (await store.claim(7, 15)).claims
    for claim in claims:
        delivered(claim.task, clock())
    await store.finish(claims)
    done = {claim.task.id for claim in claims}
    everything = {f"t{i:02}" for i in range(60)}
    for limit in (1, 7, 60, 100):
        ids = await all_pages(store, Filter(), limit)
        assert len(ids) == 60
        assert set(ids) == everything
    assert set(await all_pages(store, Filter(state=State.DELIVERED), 3)) == done
    [first, *_] = (await store.page(Filter(state=State.DELIVERED), 1)).tasks
    found = await store.get(first.id)
    assert found is not None
    assert first == replace(found.task, message_data="")
    ids = await all_pages(store, Filter(client_id="c1", source="s1"), 4)
    assert sorted(ids) == sorted(f"t{i:02}" for i in range(60) if i % 3 == 1 and i % 2 == 1)
    ids = await all_pages(store, Filter(search="t1", state=State.SCHEDULED), 100)
    assert set(ids) == {f"t{i}" for i in range(10, 20)} - done
    newest = (await store.page(Filter(state=State.SCHEDULED), 1)).tasks[0]
    assert newest.id >= "t40"


@pytest.mark.parametrize(
    "cursor",
    ["x", "1e5", "scheduled:nothing:0", "scheduled:nan:0", f"scheduled:1.0:{2**64}", "-1", "9" * 40, "٣"],
)
async def test_a_cursor_of_ones_own_is_refused(store: TaskStore, cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        await store.page(Filter(), 10, cursor)


async def test_old_ends_are_forgotten_and_nothing_else(store: TaskStore, clock: Clock) -> None:
    await store.add([a_task(id, now=clock(), base_delay=0.0) for id in ("old", "dead", "waits")])
    claims = {claim.task.id: claim for claim in (await store.claim(10, 15)).claims}
    delivered(claims["old"].task, clock())
    claims["dead"].task.succeeded(Attempt(5, "dead_destination", clock(), 0.1), clock())
    await store.finish([claims["old"], claims["dead"]])
    clock.time += 100
    before = {State.DELIVERED: clock() - 50, State.DEAD_LETTERED: clock() - 500}
    assert await store.purge(before) == 1
    assert await store.purge(before) == 0
    assert await store.get("old") is None
    assert await store.get("dead") is not None
    assert await store.get("waits") is not None


async def test_what_happened_is_added_up_by_minutes(store: TaskStore, clock: Clock) -> None:
    minute = int(clock() // 60)
    await store.add_counts(minute - 1, {"created": 5})
    await store.add_counts(minute, {"created": 2, "processed": 1})
    await store.add_counts(minute, {"created": 3})
    expected = {minute - 1: {"created": 5}, minute: {"created": 5, "processed": 1}}
    assert await store.history(minute - 10) == expected
    assert list(await store.history(minute)) == [minute]


async def test_a_healthy_store_says_nothing(store: TaskStore) -> None:
    await store.check()
