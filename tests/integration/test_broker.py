"""The brokers themselves: Apache Kafka comes back after an outage and leaves nothing; the mock is up at once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import TopicAlreadyExistsError, UnknownTopicOrPartitionError

from kafetrain.testing import (
    Broker,
    BrokerNotReadyError,
    EmbeddedBroker,
    NoBrokerError,
    UnsupportedByBrokerError,
    kafka_broker,
)
from kafetrain.testing.apache_kafka import ApacheKafkaBroker
from kafetrain.testing.broker import WAYS
from kafetrain.testing.distribution import cache_folder, fetch_jars, find_java

pytest_plugins = ["pytester"]


@pytest.fixture(scope="module")
def kafka() -> Iterator[Broker]:
    """A broker of this module's own, since it is stopped here."""
    try:
        with kafka_broker(allow_embedded=False) as broker:
            if not broker.can_restart:
                pytest.skip(f"a broker of kind {broker.kind!r} cannot be restarted")
            yield broker
            process_id = broker.process_id if isinstance(broker, ApacheKafkaBroker) else None
        if isinstance(broker, ApacheKafkaBroker):
            assert not broker.folder.exists(), "close() left the broker's folder"
            assert process_id is not None
            assert not is_running(process_id), "close() left the broker's process"
    except NoBrokerError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture
def java() -> str:
    try:
        return find_java(os.environ)
    except BrokerNotReadyError as error:
        pytest.skip(str(error))


@pytest.fixture
def libs(java: str) -> Path:
    try:
        return fetch_jars(cache_folder(os.environ))
    except BrokerNotReadyError as error:
        pytest.skip(str(error))


def write(broker: Broker, topic: str, value: bytes) -> None:
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, **broker.client_options)
    try:
        producer.send(topic, value, partition=0).get(timeout=90)
    finally:
        producer.close()


def read(broker: Broker, topic: str) -> list[bytes]:
    """All that the topic's first partition holds."""
    consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap_servers, **broker.client_options)
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        end_offset = consumer.end_offsets([partition])[partition]
        values: list[bytes] = []
        while consumer.position(partition) < end_offset:
            for records in consumer.poll(timeout_ms=1000).values():
                values += [record.value for record in records]
        return values
    finally:
        consumer.close()


def wait_until(what: str, holds: Callable[[], bool], timeout_s: float = 60) -> None:
    give_up_at = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < give_up_at, f"not so after {timeout_s:g} s: {what}"


@pytest.mark.kafka
def test_topics_are_what_was_asked_for_and_none_creates_itself(kafka: Broker) -> None:
    assert kafka.is_real
    topic = kafka.create_unique_topic(3, {"cleanup.policy": "compact"}, prefix="orders")
    with KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers, **kafka.client_options) as admin:
        (created,) = admin.describe_topics([topic])
        assert [partition["leader_id"] for partition in created["partitions"]] == [1, 1, 1]
        (missing,) = admin.describe_topics([f"{topic}-2"])
        assert missing["error_code"] == UnknownTopicOrPartitionError.errno
    with pytest.raises(TopicAlreadyExistsError):
        kafka.create_topic(topic)
    kafka.delete_topic(topic)
    with pytest.raises(UnknownTopicOrPartitionError):
        kafka.delete_topic(topic)


@pytest.mark.kafka
@pytest.mark.parametrize("outage", ["stop", "kill"])
def test_after_an_outage_kafka_is_back_at_the_same_address_with_its_data(kafka: Broker, outage: str) -> None:
    address = kafka.bootstrap_servers
    topic = kafka.create_unique_topic(2)
    write(kafka, topic, b"before")

    getattr(kafka, outage)()
    getattr(kafka, outage)()  # no-op
    with pytest.raises(BrokerNotReadyError):
        kafka.check(timeout_s=0.2)

    kafka.start()
    kafka.start()  # no-op
    assert kafka.bootstrap_servers == address
    write(kafka, topic, b"after")
    assert read(kafka, topic) == [b"before", b"after"]


OWNER = """\
from kafetrain.testing.apache_kafka import ApacheKafkaBroker
with ApacheKafkaBroker({java!r}, {libs!r}) as broker:
    print(broker.bootstrap_servers, broker.folder, broker.process_id, flush=True)
    input()
"""


@pytest.mark.kafka
def test_no_process_and_no_folder_is_left_when_their_owner_is_killed(java: str, libs: Path) -> None:
    script = OWNER.format(java=java, libs=str(libs))
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        try:
            assert owner.stdout is not None
            address, folder, process_id = owner.stdout.readline().split()
            assert Path(folder).is_dir()
            Broker(address, "address").check()
        finally:
            owner.kill()
    wait_until("the folder is removed", lambda: not Path(folder).exists())
    wait_until("the supervisor has ended", lambda: not is_running(int(process_id)))
    with pytest.raises(BrokerNotReadyError):
        Broker(address, "address").check(timeout_s=0.2)


def is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{process_id}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"  # ended, not yet collected


@pytest.mark.kafka
def test_when_java_fails_the_error_shows_what_it_wrote(java: str, libs: Path) -> None:
    with pytest.raises(BrokerNotReadyError, match="Invalid maximum heap size"):
        ApacheKafkaBroker(java, libs, java_options=["-Xmx1x"])


@pytest.mark.kafka
def test_when_kafka_fails_the_error_shows_the_end_of_its_log_and_nothing_is_left(
    java: str, libs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("kafetrain.testing.apache_kafka.SETTINGS", {"process.roles": "nonsense"})
    with pytest.raises(BrokerNotReadyError, match=r"(?s)The end of its log:.*nonsense"):
        ApacheKafkaBroker(java, libs)
    assert list(tmp_path.iterdir()) == []


def test_the_mock_is_up_at_once_and_creates_topics_of_four_partitions() -> None:
    with EmbeddedBroker() as broker:
        assert (broker.kind, broker.is_real, broker.can_restart) == ("embedded", False, False)
        broker.check()
        topic = broker.create_unique_topic(4)
        write(broker, topic, b"value")
        assert read(broker, topic) == [b"value"]


def test_the_mock_refuses_what_it_cannot_do() -> None:
    with EmbeddedBroker() as broker:
        refusals: list[Callable[[], object]] = [
            lambda: broker.create_topic("a", 3),
            lambda: broker.create_topic("a", 4, {"cleanup.policy": "compact"}),
            lambda: broker.delete_topic("a"),
            broker.stop,
            broker.start,
            broker.kill,
        ]
        for refused in refusals:
            with pytest.raises(UnsupportedByBrokerError):
                refused()
    with pytest.raises(BrokerNotReadyError, match="closed"):
        broker.create_topic("a", 4)


def test_the_fixtures_skip_what_the_mock_cannot_do_and_the_summary_says_that_it_was_the_mock(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kafetrain.testing.broker.WAYS", WAYS[-1:])
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("KAFETRAIN_TEST_BROKERS", raising=False)
    pytester.makepyfile(
        """
        def test_one(kafetrain_broker, kafetrain_topic):
            assert kafetrain_topic(4, prefix="orders").startswith("orders-")

        def test_two(kafetrain_topic):
            kafetrain_topic(3)
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["*ran on a mock broker*", "*address: KAFETRAIN_TEST_BROKERS is not set*"])
