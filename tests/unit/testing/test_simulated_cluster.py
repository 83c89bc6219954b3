"""What a test can do with a simulated cluster, beyond what every client port promises (tests/contract)."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from kafetrain.client.ports import ClientError, Committed, NotOwnerError, OffsetOutOfRangeError, OutgoingRecord
from kafetrain.record import TopicPartition
from kafetrain.testing import Hold, LoseAnswer, Refuse, Request, SimulatedClock, SimulatedCluster
from kafetrain.testing.simulated import Asked

ROOT = Path(__file__).parents[3]
NO_TIME = timedelta(0)
PLACE = TopicPartition("t", 0)


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock()


@pytest.fixture
def cluster(clock: SimulatedClock) -> SimulatedCluster:
    cluster = SimulatedCluster(clock, threads=False, session_timeout_s=10, delivery_timeout_s=5)
    cluster.create_topic("t", 1, {"cleanup.policy": "compact,delete"})
    return cluster


def record(value: bytes | None = b"v", key: bytes = b"k") -> OutgoingRecord:
    return OutgoingRecord("t", 0, key, value)


def offsets(cluster: SimulatedCluster) -> list[int]:
    return [record.offset for record in cluster.read("t")]


class Member:
    """A consumer and its owner."""

    def __init__(self, cluster: SimulatedCluster, name: str) -> None:
        self.consumer = cluster.client(name).group_consumer("g", auto_offset_reset="earliest")
        self.owned: frozenset[TopicPartition] = frozenset()
        self.log: list[str] = []
        self.consumer.subscribe(["t"], self)

    def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        self.owned |= partitions
        self.log.append("assigned")

    def revoking(
        self, partitions: frozenset[TopicPartition]
    ) -> Callable[[], Mapping[TopicPartition, Committed] | None]:
        self.owned -= partitions
        self.log.append("revoking")
        return dict

    def lost(self, partitions: frozenset[TopicPartition]) -> None:
        self.owned -= partitions
        self.log.append("lost")

    def poll(self) -> list[int]:
        return [r.offset for batch in self.consumer.poll(NO_TIME).values() for r in batch]


def settle(*members: Member) -> None:
    for _ in range(4):
        for member in members:
            member.poll()


# Logs


def test_compaction_keeps_the_last_record_of_each_key_and_the_ends(cluster: SimulatedCluster) -> None:
    cluster.write("t", b"a", b"1", b"2", None)
    cluster.write("t", b"b", b"1")
    cluster.write("t", None, b"no key")
    assert cluster.compact("t", before=2) == 1
    assert offsets(cluster) == [1, 2, 3, 4]
    assert cluster.compact("t") == 1
    assert offsets(cluster) == [2, 3, 4]
    assert cluster.remove_tombstones("t", before=2) == 0
    assert cluster.remove_tombstones("t") == 1
    assert offsets(cluster) == [3, 4]
    assert (cluster.begin_offsets("t"), cluster.end_offsets("t")) == ({0: 0}, {0: 5})


def test_a_tombstone_stays_as_long_as_an_older_record_of_its_key(cluster: SimulatedCluster) -> None:
    cluster.write("t", b"a", b"1", None)
    assert cluster.remove_tombstones("t") == 0


def test_a_reader_passes_what_has_vanished_and_is_told_where_a_log_begins_later(cluster: SimulatedCluster) -> None:
    cluster.write("t", b"a", b"1", b"2", b"3")
    reader = cluster.client().reader()
    reader.assign({PLACE: 0})
    cluster.compact("t")
    assert [r.offset for r in reader.poll(NO_TIME)[PLACE]] == [2]
    reader.seek(PLACE, 0)
    cluster.delete_records("t", 3)
    with pytest.raises(OffsetOutOfRangeError):
        reader.poll(NO_TIME)
    reader.seek(PLACE, 3)
    assert reader.poll(NO_TIME) == {}
    assert reader.position(PLACE) == 3


def test_a_transaction_is_seen_as_a_whole_or_never(cluster: SimulatedCluster) -> None:
    with cluster.transaction() as committed:
        committed.write("t", b"a", b"1")
        cluster.write("t", b"b", b"behind it")
        assert offsets(cluster) == []
    assert offsets(cluster) == [0, 1]
    aborted = cluster.begin_transaction()
    aborted.write("t", b"a", b"2")
    aborted.abort()
    cluster.write("t", b"b", b"v")
    assert offsets(cluster) == [0, 1, 5]  # 2 and 4 are markers


# Writes in flight


def test_a_held_write_lands_and_is_acknowledged_when_the_test_says_so(cluster: SimulatedCluster) -> None:
    cluster.on(Request.PRODUCE, Hold(), times=2)
    producer = cluster.client("one").producer()
    first, second, third = (producer.send(record()) for _ in range(3))
    held = cluster.in_flight("one")
    assert offsets(cluster) == []
    held[1].land()
    assert offsets(cluster) == [0, 1], "those before it come first"
    assert not first.done()
    held[1].acknowledge()
    assert (first.result(0), second.result(0)) == (0, 1)
    cluster.settle()
    assert third.result(0) == 2, "it waited for those before it"
    assert cluster.in_flight() == []


def test_a_write_that_has_had_its_time_fails_and_may_have_landed(
    cluster: SimulatedCluster, clock: SimulatedClock
) -> None:
    cluster.on(Request.PRODUCE, Hold(appended=True))
    sent = cluster.client().producer().send(record())
    clock.advance(5)
    cluster.settle()
    error = sent.exception(0)
    assert isinstance(error, ClientError)
    assert error.retriable
    assert offsets(cluster) == [0]


def test_a_lost_answer_is_a_failure_of_what_has_happened(cluster: SimulatedCluster) -> None:
    script = cluster.on(Request.PRODUCE, LoseAnswer(), topic="t")
    producer = cluster.client().producer()
    assert isinstance(producer.send(record()).exception(0), ClientError)
    assert producer.send(record()).result(0) == 1
    assert (script.hits, offsets(cluster)) == (1, [0, 1])
    admin = cluster.client().admin()
    cluster.on(Request.COMMIT, LoseAnswer())
    with pytest.raises(ClientError):
        admin.set_committed("g", {PLACE: Committed(1)})
    assert cluster.committed("g", "t") == {0: Committed(1)}


def test_a_refused_request_has_not_happened_and_scripts_match_by_client_and_topic(cluster: SimulatedCluster) -> None:
    cluster.on(Request.PRODUCE, Refuse(ClientError("no space")), client="one", topic="t", times=None)
    assert cluster.client("two").producer().send(record()).result(0) == 0
    assert str(cluster.client("one").producer().send(record()).exception(0)) == "no space"
    assert offsets(cluster) == [0]


def test_a_script_may_do_something_before_the_request(cluster: SimulatedCluster) -> None:
    asked: list[Asked] = []
    cluster.on(Request.OFFSETS, asked.append)
    assert cluster.client("one").admin().end_offsets([PLACE]) == {PLACE: 0}
    assert asked == [Asked(Request.OFFSETS, "one", ("t",))]


# Instances


def test_a_killed_member_keeps_its_partitions_until_its_session_ends(
    cluster: SimulatedCluster, clock: SimulatedClock
) -> None:
    one, two = Member(cluster, "one"), Member(cluster, "two")
    settle(one)
    cluster.on(Request.PRODUCE, Hold())
    cluster.client("one").producer().send(record())
    cluster.kill("one")
    settle(one, two)
    assert (cluster.in_flight(), offsets(cluster)) == ([], [])
    assert cluster.assignment("g") == {PLACE: "one"}
    clock.advance(11)
    settle(one, two)
    assert cluster.assignment("g") == {PLACE: "two"}
    assert two.owned == {PLACE}
    assert one.log == ["assigned"], "a dead process learns of nothing"
    with pytest.raises(ClientError):
        one.consumer.commit({PLACE: Committed(1)})


def test_a_cut_off_member_learns_that_it_has_lost_its_partitions_when_it_is_back(
    cluster: SimulatedCluster, clock: SimulatedClock
) -> None:
    one = Member(cluster, "one")
    settle(one)
    sent = cluster.client("one").producer()
    cluster.cut_off("one")
    waits = sent.send(record())
    clock.advance(11)
    two = Member(cluster, "two")
    settle(one, two)
    assert one.owned == two.owned == {PLACE}, "one is a zombie"
    cluster.reconnect("one")
    assert waits.exception(0) is not None or waits.result(0) == 0
    with pytest.raises(NotOwnerError):
        one.consumer.commit({PLACE: Committed(1)})
    settle(one, two)
    assert one.log[:2] == ["assigned", "lost"]


def test_an_expired_session_fences_the_commits_of_its_generation(cluster: SimulatedCluster) -> None:
    one = Member(cluster, "one")
    settle(one)
    one.consumer.commit({PLACE: Committed(1)})
    cluster.expire("one")
    with pytest.raises(NotOwnerError):
        one.consumer.commit({PLACE: Committed(2)})
    settle(one)
    one.consumer.commit({PLACE: Committed(3)})
    assert cluster.committed("g", "t") == {0: Committed(3)}


def test_members_learn_of_partitions_that_a_topic_has_grown(cluster: SimulatedCluster) -> None:
    one = Member(cluster, "one")
    settle(one)
    cluster.grow_topic("t", 3)
    settle(one)
    assert one.log == ["assigned", "revoking", "assigned"]
    assert len(one.owned) == 3


def test_while_brokers_are_down_nothing_answers_and_writes_wait(cluster: SimulatedCluster) -> None:
    one = Member(cluster, "one")
    settle(one)
    one.consumer.resume([PLACE])
    producer, admin = cluster.client().producer(), cluster.client().admin()
    cluster.stop()
    sent = producer.send(record())
    assert one.poll() == []
    with pytest.raises(ClientError) as caught:
        admin.describe_topics(["t"])
    assert caught.value.retriable
    assert not sent.done()
    cluster.start()
    assert sent.result(0) == 0
    assert one.poll() == [0]
    assert one.log == ["assigned"], "its session went on"


def test_a_clock_never_goes_back(clock: SimulatedClock) -> None:
    clock.advance(timedelta(milliseconds=1500))
    assert (clock.monotonic(), clock.now_ms() % 10_000) == (1.5, 1500)
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)


# Whole applications


def test_the_test_of_the_documentation_passes(tmp_path: Path) -> None:
    """The page on testing shows tests with a simulated cluster; they are run as they stand there."""
    page = (ROOT / "docs" / "pages" / "testing.md").read_text()
    mark = re.escape("<!-- run by tests/unit/testing/test_simulated_cluster.py -->")
    shown = re.findall(rf"{mark}\n```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(shown) == 2
    for number, text in enumerate(shown):
        (tmp_path / f"test_shown_{number}.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=120,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr
