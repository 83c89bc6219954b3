"""A consumer that is stopped while it joins its group does not hold up the next one."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from kafka.errors import MemberIdRequiredError

from kafetrain.client.kafka_python import KafkaPythonClient
from tests.integration.journal import Journal
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kafetrain.client.ports import Committed
    from kafetrain.record import TopicPartition
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka


class Assignment:
    """Rebalance events: what is assigned."""

    def __init__(self) -> None:
        self.partitions: frozenset[TopicPartition] = frozenset()

    def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        self.partitions |= partitions

    def revoking(
        self, partitions: frozenset[TopicPartition]
    ) -> Callable[[], Mapping[TopicPartition, Committed] | None]:
        self.partitions -= partitions
        return lambda: {}

    def lost(self, partitions: frozenset[TopicPartition]) -> None:
        self.partitions -= partitions


def test_a_member_that_is_closed_between_the_two_steps_of_its_join_is_not_waited_for(
    cluster: Cluster, kafetrain_topic: TopicFactory, make_settings: MakeSettings
) -> None:
    """The broker gives a new member its id first, and expects it to join with that; else for a session timeout."""
    topic = kafetrain_topic(2, prefix="orders")
    settings = make_settings(client_options={"session_timeout_ms": 8_000})
    client = KafkaPythonClient(settings)

    def joining() -> tuple[Any, Assignment]:
        port, assignment = client.group_consumer(settings.group_id, auto_offset_reset="earliest"), Assignment()
        port.subscribe([topic], assignment)
        return port, assignment

    first, _ = joining()
    got_id = threading.Event()
    coordinator = first._consumer._coordinator
    process = coordinator._process_join_group_response

    def process_and_stop(*args: Any) -> Any:
        try:
            return process(*args)
        except MemberIdRequiredError:
            first._join._stopped.set()  # what close() does first
            got_id.set()
            raise

    coordinator._process_join_group_response = process_and_stop
    wait_for("it has an id", got_id.is_set, check=lambda: poll(first))
    first.close()

    began = Journal.now()
    (second, one), (third, other) = joining(), joining()

    def poll_both() -> None:
        poll(second)
        poll(third)

    try:
        wait_for("each has a partition", lambda: len(one.partitions) == len(other.partitions) == 1, check=poll_both)
    finally:
        second.close()
        third.close()
    assert Journal.now() - began < 5, "less than the session timeout of the member that is gone"


def poll(port: Any) -> None:
    try:
        port.poll(timedelta(milliseconds=20))
    except Exception:
        assert port._join._stopped.is_set()
