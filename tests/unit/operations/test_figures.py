"""The figures of `kafetrain inspect`, and how they are shown in as many lines as there are."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from kafetrain.cli.inspect_view import render
from kafetrain.core.entry import Entry, encode_entry
from kafetrain.errors import ConfigurationError
from kafetrain.operations.figures import Figures, Offsets, figures_of, total_of
from kafetrain.operations.inspector import Inspector
from kafetrain.outcome import Lock
from kafetrain.record import MessageId
from kafetrain.settings import Settings
from tests.unit.fakes import FakeClock
from tests.unit.memory_cluster import MemoryCluster

NOW = datetime(2026, 1, 31, 10, 0, tzinfo=timezone.utc)


def lock(
    key: str, *, partition: int = 0, state: str = "pending", pending: int = 1, due_s: float = 60, failed_s: float = 30
) -> Lock:
    return Lock(
        topic="orders",
        partition=partition,
        key=key.encode(),
        state=state,
        head=f"billing/orders/{partition}/1",
        pending=pending,
        attempt=2,
        due=NOW + timedelta(seconds=due_s),
        first_failure=NOW - timedelta(seconds=failed_s),
        error_type="BankError",
        error="no\x1banswer\nat all",
    )


def figures(*locks: Lock, partitions: int = 2, **more: Any) -> Figures:
    given: dict[str, Any] = {
        "members": 1,
        "retry_members": 1,
        "source": {number: Offsets(10 * number + 10, 10 * number + 8) for number in range(partitions)},
        "retry": {0: Offsets(5, 3)},
    }
    return figures_of("orders", "billing", NOW, locks=locks, **{**given, **more})


def test_a_partition_has_its_offsets_and_what_waits_in_it() -> None:
    seen = figures(
        lock("a", pending=3, due_s=60, failed_s=30),
        lock("b", due_s=-5, failed_s=90),
        lock("c", state="dead", pending=2, failed_s=600, due_s=-600),
        lock("d", partition=1, state="dead", pending=0),
    )
    first, second = seen.partitions
    assert (first.source, first.retry) == (Offsets(10, 8), Offsets(5, 3))
    assert (first.pending_keys, first.pending_records, first.dead_keys) == (2, 6, 1)
    assert first.oldest_failure == NOW - timedelta(seconds=90), "a dead key's does not count"
    assert first.next_due == NOW - timedelta(seconds=5)
    assert (second.pending_keys, second.pending_records, second.dead_keys) == (0, 0, 1)
    assert (second.retry, second.oldest_failure, second.next_due) == (None, None, None)


def test_what_is_due_comes_by_due_time_and_what_is_dead_by_its_latest_failure() -> None:
    seen = figures(
        lock("a", due_s=-1),
        lock("b", due_s=-9),
        lock("later", due_s=1),
        lock("old", state="dead", failed_s=900, due_s=-900),
        lock("new", state="dead", failed_s=9, due_s=-9),
    )
    assert [found.key for found in seen.due] == [b"b", b"a"]
    assert [found.key for found in seen.dead] == [b"new", b"old"]


def test_the_total_is_the_sum_and_the_earliest() -> None:
    seen = figures(lock("a", pending=3), lock("b", partition=1, failed_s=90), lock("c", partition=1, state="dead"))
    total = total_of(seen.partitions)
    assert total.source is not None
    assert total.retry is not None
    assert (total.source.lag, total.retry.lag) == (4, 2)
    assert (total.pending_keys, total.pending_records, total.dead_keys) == (2, 5, 1)
    assert total.oldest_failure == NOW - timedelta(seconds=90)
    assert total.next_due == NOW + timedelta(seconds=60)


def test_lag_is_everything_where_nothing_is_committed_and_never_negative() -> None:
    assert (Offsets(7).lag, Offsets(7, 7).lag, Offsets(7, 9).lag) == (7, 0, 0)


def test_locks_of_a_partition_that_the_topic_does_not_have_are_shown() -> None:
    seen = figures(lock("a", partition=7))
    assert [(row.partition, row.source) for row in seen.partitions][-1] == (7, None)


# The view


def shown(seen: Figures, height: int | None = None, note: str = "") -> list[str]:
    console = Console(file=StringIO(), width=140, force_terminal=False)
    console.print(render(seen, height=height, note=note))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


def test_everything_is_shown_where_there_is_room() -> None:
    lines = shown(figures(lock("a", due_s=-1, pending=3), lock("gone", state="dead"), partitions=40))
    assert lines[0].startswith("orders  group billing, 1 member; retries: 1 member")
    assert sum("in 60 s" in line or " now" in line for line in lines) >= 2
    assert len([line for line in lines if line.strip()[:1].isdigit()]) == 40
    (due,) = [line for line in lines if line.startswith("a ")]
    assert due.split() == ["a", "0", "2", "2", "30", "s", "BankError:", "no?answer"], "no control character passes"
    assert any(line.startswith("gone ") for line in lines)


@pytest.mark.parametrize("height", [16, 24, 50])
def test_it_never_needs_more_lines_than_there_are(height: int) -> None:
    locks = [lock(f"key-{at}", due_s=-at, partition=at % 30) for at in range(200)]
    locks += [lock(f"dead-{at}", state="dead", partition=29) for at in range(200)]
    lines = shown(figures(*locks, partitions=30), height)
    assert len(lines) < height
    assert any("due now or running: 200" in line for line in lines)
    assert any("dead: 200" in line for line in lines)
    assert any(line.split()[:1] == ["29"] for line in lines), "a partition with dead keys is shown first"


def test_a_group_without_members_and_without_an_answer_says_so() -> None:
    lines = shown(figures(members=0, retry_members=2), note="no answer: ClientError: timeout")
    assert "0 members; retries: 2 members" in lines[0]
    assert lines[0].endswith("no answer: ClientError: timeout")


# Looking


def test_a_second_look_reads_only_what_is_new_and_follows_a_topic_that_grows() -> None:
    cluster, clock = MemoryCluster(), FakeClock(1_000.0)
    cluster.add("orders", 1)
    cluster.append("orders", 0, b"a", b"m")
    settings = Settings(group_id="billing")

    def put(partition: int, offset: int) -> None:
        id = str(MessageId("billing", "orders", partition, offset)).encode()
        cluster.append("redirect-orders", partition, id, encode_entry(Entry(b"a")))

    with Inspector(cluster, settings, "orders", clock=clock) as inspector:
        assert inspector.look().partitions[0].pending_records == 0, "nothing has ever failed"
        cluster.add("redirect-orders", 1)
        cluster.add("retry-orders", 1)
        put(0, 0)
        assert inspector.look().partitions[0].pending_records == 1
        connected = cluster.open_clients
        cluster.logs[next(place for place in cluster.logs if place.topic == "redirect-orders")][0] = None  # type: ignore[call-overload]  # must not be read again
        put(0, 1)
        seen = inspector.look()
        assert (seen.partitions[0].pending_records, cluster.open_clients) == (2, connected)
        assert [found.key for found in seen.due] == [b"a"]
    assert cluster.open_clients == 0
    with Inspector(cluster, settings, "order") as inspector, pytest.raises(ConfigurationError, match="does not exist"):
        inspector.look()


def test_a_redirect_topic_that_has_grown_is_read_in_all_its_partitions() -> None:
    cluster = MemoryCluster()
    for topic in ("orders", "redirect-orders"):
        cluster.add(topic, 1)
    with Inspector(cluster, Settings(group_id="billing"), "orders") as inspector:
        inspector.look()
        for topic in ("orders", "redirect-orders"):
            cluster.add(topic, 2)
        id = str(MessageId("billing", "orders", 1, 0)).encode()
        cluster.append("redirect-orders", 1, id, encode_entry(Entry(b"a").died((0, 0))))
        assert [row.dead_keys for row in inspector.look().partitions] == [0, 1]
    assert cluster.open_clients == 0
