"""A handler that outlives its partition: the next owner runs the record, and what the late one says counts nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from kafetrain import ConstantBackoff, KafkaConsumer, Record, get_retry_attempt
from tests.waiting import wait_for

if TYPE_CHECKING:
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka


class Handler:
    """Notes what it runs. `slow` marks the record whose first run hangs until `let_go`."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.runs: list[tuple[str, bytes, int]] = []
        self.hangs, self.let_go, self.woke_up = threading.Event(), threading.Event(), threading.Event()
        self.late_failure = False

    def of(self, instance: str) -> Callable[[Record], None]:
        def handle(record: Record) -> None:
            attempt = get_retry_attempt(record)
            self.runs.append((instance, record.value, attempt))
            if record.value != b"slow":
                return
            if attempt < self.failures:
                raise ValueError("not yet")
            if not self.hangs.is_set():
                self.hangs.set()
                self.let_go.wait(60)
                self.woke_up.set()
                if self.late_failure:
                    raise ValueError("too late")

        return handle

    def times(self, value: bytes) -> int:
        return sum(run[1] == value for run in self.runs)


@pytest.mark.parametrize("late_failure", [False, True], ids=["it succeeds late", "it fails late"])
@pytest.mark.parametrize("failures", [0, 1], ids=["first run", "retry"])
@pytest.mark.parametrize("partition", [1, 0], ids=["to another instance", "back to the same instance"])
def test_a_partition_moves_on_without_a_handler_that_hangs(
    partition: int,
    failures: int,
    late_failure: bool,
    cluster: Cluster,
    kafetrain_topic: TopicFactory,
    make_settings: MakeSettings,
) -> None:
    topic, group = kafetrain_topic(2), f"g-{partition}-{failures}-{late_failure}"
    handler = Handler(failures)
    handler.late_failure = late_failure
    # By the range assignor, and in the order of the client ids: once there are two, a has partition 0, b has 1.
    a, b = (
        KafkaConsumer.resilient(
            make_settings(
                group_id=group,
                client_options={"client_id": name, "heartbeat_interval_ms": 200},
                concurrency=4,
                shutdown_timeout=timedelta(milliseconds=500),
                backoff=ConstantBackoff(timedelta(milliseconds=10)),
            ),
            topic,
            handler.of(name),
        )
        for name in "ab"
    )
    cluster.write(topic, b"k", b"slow", b"next", partition=partition)
    with a:
        assert handler.hangs.wait(30)
        with b:
            wait_for("the record has run again, and the next one", lambda: handler.times(b"next"))
            handler.let_go.set()
            assert handler.woke_up.wait(10)
            for number in (0, 1):
                cluster.write(topic, b"k", b"last", partition=number)
            wait_for("both go on", lambda: {run[0] for run in handler.runs if run[1] == b"last"} == {"a", "b"})
            wait_for("no lock is left", lambda: not a.tracker.locks(topic) + b.tracker.locks(topic))
            # A last commit, when both leave at once, may meet the rebalance that the first one causes.
            ends = {number: end for number, end in cluster.end_offsets(topic).items() if end}
            wait_for(
                "all is committed",
                lambda: {number: at for number, (at, _) in cluster.committed(group, topic).items() if at} == ends,
            )
            a.check()
            b.check()
    heir = "a" if partition == 0 else "b"
    slow = [("a", b"slow", attempt) for attempt in range(failures + 1)] + [(heir, b"slow", failures)]
    assert [run for run in handler.runs if run[1] != b"last"] == [*slow, (heir, b"next", 0)]
    cluster.check_at_rest(make_settings(group_id=group), topic)
