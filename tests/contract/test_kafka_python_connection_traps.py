"""What the bare library does wrong in connecting and asking, and that our clients do not.

A test whose first half fails means good news: the library is mended, and its workaround can go.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource
from kafka.net.transport import KafkaTCPTransport
from kafka.protocol.metadata import CoordinatorType

from kafetrain.client.kafka_python import KafkaPythonClient
from kafetrain.client.kafka_python_workarounds import deliver_what_came_before_the_end
from kafetrain.client.ports import Committed, OutgoingRecord
from kafetrain.record import TopicPartition
from kafetrain.settings import Settings
from kafetrain.testing import Broker
from tests.contract.bare_kafka_python import they
from tests.contract.conftest import Cluster
from tests.waiting import wait_for


def test_settings_that_a_broker_refuses_to_tell_are_empty(kafka_cluster: Cluster) -> None:
    """Ours: test_settings_that_the_broker_does_not_tell_are_an_error."""
    with KafkaAdminClient(bootstrap_servers=kafka_cluster.servers) as bare:
        assert bare.describe_configs([ConfigResource("topic", "missing-topic")], config_filter="all") == {
            "topic": {"missing-topic": {}}
        }


def test_one_error_ends_the_refreshing_of_metadata_for_good(kafka_cluster: Cluster) -> None:
    def fail_once(cluster: Any) -> None:
        ask = cluster.metadata_request

        def topics_changed() -> None:
            cluster.metadata_request = ask
            raise RuntimeError("Set changed size during iteration")

        cluster.metadata_request = topics_changed
        failed = cluster.request_update()
        wait_for("a refresh has failed", lambda: failed.is_done)
        wait_for("the loop has ended", lambda: cluster._refresh_loop_future.is_done)

    with KafkaAdminClient(bootstrap_servers=kafka_cluster.servers) as bare:
        fail_once(bare._manager.cluster)
        asked = bare._manager.cluster.request_update()
        assert bare._manager.cluster._refresh_loop_future.is_done, "nobody will answer"
        assert not asked.is_done

    admin: Any = kafka_cluster.admin
    fail_once(admin._admin._manager.cluster)
    asked = admin._admin._manager.cluster.request_update()
    wait_for("it is refreshed", asked.succeeded)


def test_an_admin_client_never_forgets_a_coordinator(kafka_cluster: Cluster) -> None:
    place = TopicPartition(kafka_cluster.topic(), 0)
    group = f"group-{place.topic}"
    gone = 99  # a broker that the cluster no longer has

    def forget_it_moved(admin: Any) -> None:
        admin._manager.cluster._coordinators[(CoordinatorType.GROUP, group)] = gone

    with KafkaAdminClient(bootstrap_servers=kafka_cluster.servers) as bare:
        forget_it_moved(bare)
        for _ in range(2):
            with pytest.raises(kafka_errors.KafkaError):
                bare.list_group_offsets({group: [they(*place)]})

    admin: Any = kafka_cluster.admin
    admin.set_committed(group, {place: Committed(1)})
    forget_it_moved(admin._admin)
    assert admin.committed(group, [place]) == {place: Committed(1)}


def test_a_password_is_logged(kafka_cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    options = {
        "bootstrap_servers": kafka_cluster.servers,
        "sasl_plain_username": "user",
        "sasl_plain_password": "hunter2",
    }
    with caplog.at_level(logging.DEBUG, "kafka.admin"):
        KafkaAdminClient(**options).close()
        assert "hunter2" in caplog.text
        caplog.clear()
        names = ("security_protocol", "sasl_mechanism", "sasl_username", "ssl_cafile", "ssl_certfile", "ssl_keyfile")
        settings = SimpleNamespace(
            bootstrap_servers=kafka_cluster.servers,
            client_options={"sasl_plain_password": "hunter2"},
            sasl_password=None,
            **dict.fromkeys(names),
        )
        with caplog.at_level(logging.DEBUG):
            KafkaPythonClient(settings).admin().close()
        assert "hunter2" not in caplog.text


def test_a_failed_start_leaves_a_thread(kafka_cluster: Cluster) -> None:
    """Ours: test_a_broker_that_does_not_answer_is_named_and_nothing_is_left_behind."""
    before = set(threading.enumerate())
    with pytest.raises(kafka_errors.KafkaTimeoutError):
        KafkaConsumer(bootstrap_servers="127.0.0.1:1", bootstrap_timeout_ms=100)
    left = [thread for thread in threading.enumerate() if thread not in before]
    assert left
    for thread in left:
        thread._target.__self__.close()  # type: ignore[attr-defined]  # nobody else knows its loop


def test_a_refused_login_is_told_as_a_timeout(kafka_cluster: Cluster) -> None:
    """Ours: test_a_refused_login_is_told_at_once_and_is_not_retriable."""
    with pytest.raises(kafka_errors.KafkaTimeoutError, match="Unable to bootstrap"):
        KafkaProducer(
            bootstrap_servers=kafka_cluster.servers,
            bootstrap_timeout_ms=300,
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="PLAIN",
            sasl_plain_username="user",
            sasl_plain_password="hunter2",
        )


def test_what_a_broker_says_before_it_hangs_up_is_dropped() -> None:
    """Such as the reason why it refuses a login."""

    def received(mend: Callable[[Any], None] | None) -> list[bytes]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.sendall(b"the reason")
        theirs.close()

        async def at_once(_: Any) -> None: ...

        net = SimpleNamespace(wait_read=at_once, unregister_event=lambda *_: None)
        seen: list[bytes] = []
        transport = KafkaTCPTransport(net, ours, host="broker")
        transport.set_protocol(
            SimpleNamespace(_sensors=None, data_received=seen.append, connection_lost=lambda _: None)
        )
        transport._read = True
        if mend is not None:
            mend(transport)
        with suppress(StopIteration):
            transport._read_from_sock().send(None)
        assert transport.is_closing()
        return seen

    assert received(None) == []
    assert received(deliver_what_came_before_the_end) == [b"the reason"]


def test_topics_are_created_although_that_was_forbidden(embedded_broker: Broker) -> None:
    """On the mock broker, which creates what it is asked to."""
    topic = "forbidden-topic"
    servers, options = embedded_broker.bootstrap_servers, embedded_broker.client_options
    settings = Settings(bootstrap_servers=servers, group_id="g", client_options={**options, "max_block_ms": 300})
    client = KafkaPythonClient(settings)
    admin, producer = client.admin(), client.producer()
    try:
        assert producer.send(OutgoingRecord(topic, 0, b"k", b"v")).exception(5) is not None
        assert admin.describe_topics([topic]) == {}
        bare = KafkaProducer(bootstrap_servers=servers, allow_auto_create_topics=False, **options)
        bare.send(topic, b"v", partition=0).get(10)
        bare.close()
        assert set(admin.describe_topics([topic])) == {topic}
    finally:
        producer.close(timedelta(seconds=1))
        admin.close()
