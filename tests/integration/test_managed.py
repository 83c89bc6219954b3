"""Managed consumers on a real broker: switched under load, restarted, disabled, stopped, balanced as declared."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from kafka import KafkaAdminClient

from kafetrain import ConstantBackoff, NotRetriableError, Record, get_retry_attempt
from kafetrain.managed import ConsumerConfig, ConsumerState, Registry
from kafetrain.record import TopicPartition
from tests.clients import named_for
from tests.integration.journal import Journal, Written
from tests.waiting import wait_for

if TYPE_CHECKING:
    from kafetrain.testing import Broker
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
SOON = ConstantBackoff(timedelta(milliseconds=20))

Declare = Callable[..., ConsumerConfig]


@pytest.fixture
def registry(cluster: Cluster) -> Iterator[Registry]:
    with Registry() as registry:
        yield registry


@pytest.fixture
def declare(kafetrain_broker: Broker, make_settings: MakeSettings, library: str) -> Declare:
    def declare(topic: str, handler: Any, **changes: Any) -> ConsumerConfig:
        defaults: dict[str, Any] = {
            "job_name": "job",
            "topic": topic,
            "group_id": make_settings().group_id,
            "handler": handler,
            "bootstrap_servers": kafetrain_broker.bootstrap_servers,
            "client": library,
            "client_options": named_for(library, kafetrain_broker.client_options),
            "initial_offset": "earliest",
            "restart_backoff": SOON,
        }
        return ConsumerConfig(**{**defaults, **changes})

    return declare


def wait_until(registry: Registry, state: ConsumerState, job: str = "job") -> None:
    wait_for(f"{job} is {state.value}", lambda: registry.status(job, lag=False).state is state)


def orders(count: int) -> list[tuple[int, bytes, bytes]]:
    return [(at % 2, b"key-%d" % (at % 10), b"m%d" % at) for at in range(count)]


@pytest.mark.parametrize("retry", [None, True, {"delivery": "transactional"}])
def test_a_switch_that_is_flipped_under_load_loses_nothing_and_keeps_the_order(
    registry: Registry,
    cluster: Cluster,
    kafetrain_topic: TopicFactory,
    declare: Declare,
    library: str,
    retry: bool | dict[str, str] | None,
) -> None:
    topic, journal = kafetrain_topic(2, prefix="orders"), Journal()
    config = declare(topic, journal.recording(lambda record: None), retry=retry, concurrency=4)
    registry.register_consumer(config)
    written, enough = list[Written](), threading.Event()

    def write() -> None:
        while not enough.is_set():
            written.extend(cluster.write_all(topic, orders(40)))
            enough.wait(0.1)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(4):
            before = len(journal.offsets("ended"))
            journal.interrupted()
            registry.set_consumer_switch("job", True)
            wait_for("it works", lambda least=before: len(journal.offsets("ended")) > least)  # type: ignore[misc]  # bound now
            registry.set_consumer_switch("job", False)
            wait_until(registry, ConsumerState.OFF)
    finally:
        enough.set()
        writer.join()
    journal.interrupted()
    registry.set_consumer_switch("job", True)
    wait_for("all have ended", lambda: {w.place for w in written} <= set(journal.places("ended")))
    registry.set_consumer_switch("job", False)
    wait_until(registry, ConsumerState.OFF)

    journal.no_loss(written)
    journal.key_order(written)
    assert registry.status("job").lag == {TopicPartition(topic, 0): 0, TopicPartition(topic, 1): 0}


def test_a_raising_handler_is_an_error_and_errors_in_a_row_disable_the_consumer(
    registry: Registry, cluster: Cluster, kafetrain_topic: TopicFactory, declare: Declare, log: list[str]
) -> None:
    topic, tries, healed = kafetrain_topic(prefix="orders"), list[int](), threading.Event()
    cluster.write(topic, b"a", b"good", b"bad", b"after")

    def handle(record: Record) -> None:
        tries.append(record.offset)
        if record.value == b"bad" and not healed.is_set():
            raise ValueError("a payload")

    config = declare(topic, handle)
    registry.register_consumer(config)
    registry.set_consumer_switch("job", True)
    wait_until(registry, ConsumerState.DISABLED)
    status = registry.status("job")
    assert tries == [0] + [1] * 10
    assert (status.restarts, status.consecutive_errors, status.last_error) == (9, 10, "ValueError")
    assert cluster.committed(config.group_id, topic)[0][0] == 1, "the failed one is not committed"
    assert status.lag == {TopicPartition(topic, 0): 2}
    assert len([line for line in log if "disabled after 10 errors in a row" in line]) == 1
    assert not any("a payload" in line for line in log)

    healed.set()
    registry.set_consumer_switch("job", True)
    wait_for("it has caught up", lambda: tries[-1] == 2)
    registry.set_consumer_switch("job", False)
    wait_until(registry, ConsumerState.OFF)
    assert registry.status("job").lag == {TopicPartition(topic, 0): 0}


def test_with_auto_commit_a_record_whose_handler_raised_is_lost(
    registry: Registry, cluster: Cluster, kafetrain_topic: TopicFactory, declare: Declare
) -> None:
    topic, tries = kafetrain_topic(prefix="orders"), list[int]()
    cluster.write(topic, b"a", b"good", b"bad", b"after")

    def handle(record: Record) -> None:
        tries.append(record.offset)
        if record.value == b"bad":
            raise ValueError

    config = declare(topic, handle, auto_commit=True)
    registry.register_consumer(config)
    registry.start_all_consumers()
    wait_for("it has been restarted", lambda: registry.status("job", lag=False).restarts == 1)
    wait_for("all have had their run", lambda: 2 in tries)
    registry.set_consumer_switch("job", False)
    wait_until(registry, ConsumerState.OFF)
    assert tries == [0, 1, 2]
    assert cluster.committed(config.group_id, topic)[0][0] == 3


def test_with_retry_a_failing_record_waits_and_the_consumer_goes_on(
    registry: Registry, cluster: Cluster, kafetrain_topic: TopicFactory, declare: Declare
) -> None:
    topic, journal = kafetrain_topic(prefix="orders"), Journal()
    written = cluster.write_all(topic, [(0, b"a", b"bad"), (0, b"b", b"good"), (0, b"a", b"behind")])

    def handle(record: Record) -> None:
        if record.value == b"bad" and get_retry_attempt(record) < 2:
            raise ValueError

    retry = {"backoff": {"policy": "constant", "initial": "20ms"}}
    registry.register_consumer(declare(topic, journal.recording(handle), retry=retry))
    registry.start_all_consumers()
    wait_for("all have ended", lambda: len(journal.offsets("ended")) == 3)
    (tracker,) = registry.trackers
    wait_for("no lock is left", lambda: not tracker.locks(topic))
    status = registry.status("job", lag=False)
    assert (status.state, status.restarts) == (ConsumerState.RUNNING, 0)
    journal.key_order(written)
    assert journal.attempts(0) == [0, 1, 2]


def test_a_record_that_is_given_up_is_told_of(
    registry: Registry, cluster: Cluster, kafetrain_topic: TopicFactory, declare: Declare
) -> None:
    topic, told = kafetrain_topic(prefix="orders"), list[tuple[int, str]]()
    cluster.write(topic, b"a", b"bad")

    def handle(record: Record) -> None:
        raise NotRetriableError("no account")

    def tell(record: Record, error: BaseException) -> None:
        told.append((record.offset, f"{error}"))

    registry.register_consumer(declare(topic, handle, retry=True, on_dead_letter=tell))
    registry.start_all_consumers()
    wait_for("it is told of", lambda: told == [(0, "no account")])
    assert registry.status("job", lag=False).state is ConsumerState.RUNNING


def test_latest_skips_what_was_written_before_and_earliest_does_not(
    registry: Registry, cluster: Cluster, kafetrain_topic: TopicFactory, declare: Declare
) -> None:
    topic, seen = kafetrain_topic(prefix="orders"), {"earliest": list[bytes](), "latest": list[bytes]()}
    cluster.write(topic, b"a", b"before")
    for where, values in seen.items():

        def handle(record: Record, values: list[bytes] = values) -> None:
            values.append(record.value)

        registry.register_consumer(declare(topic, handle, job_name=where, initial_offset=where))
    registry.start_all_consumers()
    count = 0

    def written_after() -> bool:  # until the one with "latest" is there to see one
        nonlocal count
        count += 1
        cluster.write(topic, b"a", b"after %d" % count)
        return bool(seen["latest"])

    wait_for("a later one has come", written_after)
    wait_for("the first one has come", lambda: b"before" in seen["earliest"])
    assert b"before" not in seen["latest"]


def test_a_record_above_max_message_bytes_is_delivered_all_the_same(
    registry: Registry, cluster: Cluster, kafetrain_topic: TopicFactory, declare: Declare
) -> None:
    topic, sizes = kafetrain_topic(prefix="orders"), list[int]()
    cluster.write(topic, b"a", b"small", b"x" * 100_000, b"small")
    registry.register_consumer(declare(topic, lambda record: sizes.append(len(record.value)), max_message_bytes="4KiB"))
    registry.start_all_consumers()
    wait_for("all have come", lambda: sizes == [5, 100_000, 5])


def test_read_uncommitted_delivers_what_was_aborted(
    registry: Registry, cluster: Cluster, kafetrain_topic: TopicFactory, declare: Declare
) -> None:
    topic, seen = kafetrain_topic(prefix="orders"), {"read_committed": set[bytes](), "read_uncommitted": set[bytes]()}
    cluster.write_in_transactions(topic, ("abort", [(b"a", b"aborted")]), ("commit", [(b"a", b"committed")]))
    for level, values in seen.items():
        handler = lambda record, values=values: values.add(record.value)  # noqa: E731 - short
        registry.register_consumer(declare(topic, handler, job_name=level, isolation_level=level))
    registry.start_all_consumers()
    wait_for("both have the committed one", lambda: all(b"committed" in values for values in seen.values()))
    assert seen == {"read_committed": {b"committed"}, "read_uncommitted": {b"aborted", b"committed"}}


@pytest.mark.parametrize(
    ("strategy", "protocol"),
    [
        ("round-robin", "roundrobin"),
        ("range", "range"),
        ("sticky", "sticky"),
        ("cooperative-sticky", "cooperative-sticky"),
    ],
)
def test_the_declared_strategy_is_what_the_group_agrees_on(
    registry: Registry,
    cluster: Cluster,
    kafetrain_topic: TopicFactory,
    declare: Declare,
    kafetrain_broker: Broker,
    library: str,
    strategy: str,
    protocol: str,
) -> None:
    """And two members share the partitions: each handles records, none is lost."""
    if (library, strategy) == ("confluent", "sticky"):
        pytest.skip("confluent-kafka knows no sticky, and a declaration with both is refused")
    topic, journal = kafetrain_topic(4, prefix="orders"), {"one": Journal(), "two": Journal()}
    config = declare(topic, None)
    for name, own in journal.items():
        registry.register_consumer(
            declare(
                topic,
                own.recording(lambda record: None, name),
                job_name=name,
                group_id=config.group_id,
                balance_strategies=strategy,
                max_processing_time="5s",
            )
        )
    registry.start_all_consumers()
    written: list[Written] = []

    def both_work() -> bool:
        written.extend(cluster.write_all(topic, [(at % 4, None, b"m") for at in range(8)]))
        return all(own.offsets("ended") for own in journal.values())

    wait_for("both handle records", both_work)
    with_admin = KafkaAdminClient(
        bootstrap_servers=kafetrain_broker.bootstrap_servers, **kafetrain_broker.client_options
    )
    try:
        group = with_admin.describe_groups([config.group_id])[config.group_id]
    finally:
        with_admin.close()
    assert group["protocol_data"] == protocol
    assert len(group["members"]) == 2
    wait_for(
        "nothing is lost",
        lambda: {w.place for w in written} <= {place for own in journal.values() for place in own.places("ended")},
    )


def test_a_slow_handler_is_warned_of_and_costs_neither_membership_nor_memory(
    registry: Registry, cluster: Cluster, kafetrain_topic: TopicFactory, declare: Declare, log: list[str]
) -> None:
    topic, journal, release = kafetrain_topic(prefix="orders"), Journal(), threading.Event()
    written = cluster.write(topic, b"a", *(b"m%d" % at for at in range(20)))

    def handle(record: Record) -> None:
        if record.offset == 3:
            release.wait(30)

    config = declare(topic, journal.recording(handle), session_timeout="6s", heartbeat_interval="500ms")
    registry.register_consumer(config)
    registry.start_all_consumers()
    wait_for("it is warned of", lambda: any("longer than max_processing_time" in line for line in log))
    release.set()
    wait_for("all have ended", lambda: len(journal.offsets("ended")) == 20)
    assert registry.status("job", lag=False).restarts == 0
    journal.no_loss(written)
    journal.once()
    assert len([line for line in log if "longer than max_processing_time" in line]) == 1


SERVICE = """
import sys, threading, time
from kafetrain.managed import ConsumerConfig, register_consumer, run

brokers, topic, group = sys.argv[1:]
slow = threading.Event()

class Billing:
    config = ConsumerConfig(
        job_name="billing", topic=topic, group_id=group, bootstrap_servers=brokers, initial_offset="earliest"
    )

    def handle(self, record):
        print("started", record.offset, flush=True)
        if record.offset == 2:
            slow.wait(0.5)
        print("ended", record.offset, flush=True)

register_consumer(Billing())
run()
print("stopped", flush=True)
"""


def test_sigterm_drains_and_the_next_instance_goes_on_behind_it(
    cluster: Cluster, kafetrain_topic: TopicFactory, kafetrain_broker: Broker, make_settings: MakeSettings
) -> None:
    topic, group = kafetrain_topic(prefix="orders"), make_settings().group_id
    cluster.write(topic, b"a", b"m0", b"m1", b"m2", b"m3")
    command = [sys.executable, "-c", SERVICE, kafetrain_broker.bootstrap_servers, topic, group]
    lines: list[list[str]] = []
    for until in ("started 2", "ended 3"):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            try:
                lines.append([])
                while not lines[-1] or lines[-1][-1] != until:
                    lines[-1].append(process.stdout.readline().strip())
                    assert lines[-1][-1], process.stderr.read()
                process.terminate()
                lines[-1] += process.stdout.read().split("\n")[:-1]
                assert process.wait(20) == 0, process.stderr.read()
            finally:
                process.kill()
    first, second = lines
    assert first[-2:] == ["ended 2", "stopped"], "what ran when the signal came was finished"
    assert second == ["started 3", "ended 3", "stopped"]
    assert cluster.committed(group, topic)[0][0] == 4
