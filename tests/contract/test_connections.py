"""Brokers that are silent, come back, refuse a login or do not exist; and the options that clients are built with."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import pytest

from kafetrain.client.kafka_python import OWNED_OPTIONS, known_options
from kafetrain.client.ports import ClientError, Committed, OutgoingRecord
from kafetrain.record import TopicPartition
from tests.contract.conftest import Cluster, client_of, frozen
from tests.contract.ports import MARGIN_S, commits, read
from tests.waiting import wait_for


def test_while_a_broker_is_silent_polls_return_and_commits_fail(
    either_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And afterwards all goes on by itself."""
    monkeypatch.setattr(either_cluster.bounds, "COMMIT_TIMEOUT_MS", 200)
    topic = either_cluster.topic()
    place = TopicPartition(topic, 0)
    owner, reader = either_cluster.member(topic), either_cluster.reader()
    owner.join()
    owner.consumer.resume(owner.owned)
    reader.assign({place: None})
    either_cluster.write(topic, 1)
    assert len(read(reader, {place: 1})) == 1
    owner.poll_until("the first record", lambda: owner.delivered)
    with frozen(either_cluster.broker):
        for poll in (owner.poll, reader.poll):
            for _ in range(5):
                began = time.monotonic()
                assert not poll(timedelta(milliseconds=50))
                assert time.monotonic() - began < 0.05 + MARGIN_S
        with pytest.raises(ClientError) as caught:
            owner.consumer.commit({place: Committed(1)})
        assert caught.value.retriable
    either_cluster.write(topic, 1)
    assert [record.offset for record in read(reader, {place: 2})] == [1]
    owner.poll_until("the second record", lambda: len(owner.delivered) == 2)
    owner.consumer.commit({place: Committed(2)})


def test_clients_go_on_when_a_broker_comes_back(either_cluster: Cluster) -> None:
    cluster = either_cluster
    if not cluster.broker.can_restart:
        pytest.skip(f"a broker of kind {cluster.broker.kind!r} cannot be restarted")
    topic = cluster.topic()
    place = TopicPartition(topic, 0)
    owner, reader = cluster.member(topic), cluster.reader()
    owner.join()
    owner.consumer.resume(owner.owned)
    reader.assign({place: None})
    cluster.write(topic, 1)
    owner.poll_until("the first record", lambda: owner.delivered)
    read(reader, {place: 1})
    cluster.broker.kill()
    for poll in (owner.poll, reader.poll):
        for _ in range(5):
            began = time.monotonic()
            assert not poll(timedelta(milliseconds=50))
            assert time.monotonic() - began < 0.05 + MARGIN_S
    meanwhile = cluster.producer.send(OutgoingRecord(topic, 0, b"k", b"meanwhile"))
    cluster.broker.start()
    offset = meanwhile.result(30)
    read(reader, {place: offset + 1})
    owner.poll_until("the second record", lambda: owner.delivered[-1].offset == offset)
    wait_for("a commit", lambda: commits(owner, {place: Committed(offset + 1)}))
    assert cluster.admin.committed(f"group-{topic}", [place]) == {place: Committed(offset + 1)}


LOGIN = {
    "group_id": "g",
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "PLAIN",
    "sasl_username": "user",
    "sasl_password": "hunter2",
}


@pytest.mark.parametrize("library", ["kafka-python", "confluent"])
@pytest.mark.parametrize("role", ["admin", "producer", "reader", "group_consumer"])
def test_a_broker_that_does_not_answer_is_named_and_nothing_is_left_behind(role: str, library: str) -> None:
    before = threading.active_count()
    settings = {**LOGIN, "bootstrap_servers": "127.0.0.1:1,127.0.0.1:2"}
    client = client_of(library, settings, {"bootstrap_timeout_ms": 200})
    arguments: dict[str, Any] = {"group": "g", "auto_offset_reset": "earliest"} if role == "group_consumer" else {}
    with pytest.raises(ClientError, match=r"127\.0\.0\.1:1,127\.0\.0\.1:2.*(REFUSED|refused|timed out)") as caught:
        getattr(client, role)(**arguments)
    assert caught.value.retriable
    assert "hunter2" not in repr(caught.value)
    assert threading.active_count() == before


@pytest.mark.parametrize("role", ["admin", "producer", "reader"])
def test_a_refused_login_is_told_at_once_and_is_not_retriable(either_cluster: Cluster, role: str) -> None:
    # Which this listener does not speak.
    client = client_of(either_cluster.library, {**LOGIN, "bootstrap_servers": either_cluster.servers}, {})
    began = time.monotonic()
    with pytest.raises(ClientError, match=r"refused.*sasl_") as caught:
        getattr(client, role)()
    assert time.monotonic() - began < 5
    assert not caught.value.retriable
    assert "hunter2" not in str(caught.value)


def test_an_option_that_cannot_be_is_told_and_nothing_is_left_behind(kafka_cluster: Cluster) -> None:
    client = kafka_cluster.client(compression_type="zst")
    before = threading.active_count()
    with pytest.raises(ClientError, match=r"the producer cannot be built: .*zst") as caught:
        client.producer()
    assert not caught.value.retriable
    wait_for("its threads have ended", lambda: threading.active_count() <= before)


@pytest.mark.needs("client options")
def test_options_reach_the_clients_that_know_them(cluster: Cluster) -> None:
    """`linger_ms` is the producer's alone, `fetch_min_bytes` the consumer's; each of the others would refuse it."""
    client = cluster.client(linger_ms=1, fetch_min_bytes=1, retry_backoff_ms=10, request_timeout_ms=60_000)
    cluster.close_later(client.admin())
    cluster.close_later(client.reader())
    client.producer().close(timedelta(seconds=1))


def test_every_option_that_is_ours_is_one_that_the_library_has() -> None:
    known = known_options()
    assert known.keys() == {"consumer", "producer", "admin"}
    assert frozenset().union(*known.values()) >= OWNED_OPTIONS
