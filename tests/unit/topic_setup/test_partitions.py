"""Growing the auxiliary topics, against a cluster in memory."""

from __future__ import annotations

import shlex

import pytest

from kafetrain.client.ports import ClientError
from tests.unit.fakes import FakeAdmin, FakeClock
from tests.unit.topic_setup.clusters import AUXILIARY, ROOMY, commands, good_cluster, prepare, refusal


class TestPartitions:
    def test_topics_grow_with_their_source(self) -> None:
        admin = good_cluster(partitions=3)
        admin.add("orders", partitions=5)
        ready = prepare(admin)
        assert admin.grown == [(name, 5) for name in AUXILIARY]
        assert ready.partitions == dict.fromkeys(AUXILIARY, 5)

    def test_only_what_is_too_short_grows(self) -> None:
        admin = good_cluster(partitions=3)
        admin.add("retry-orders", 2, ROOMY)
        admin.add("dlq-orders", 8, ROOMY)
        assert prepare(admin).partitions == {"retry-orders": 3, "redirect-orders": 3, "dlq-orders": 8}
        assert admin.grown == [("retry-orders", 3)]

    def test_it_waits_until_the_new_partitions_can_be_seen(self) -> None:
        admin, clock = good_cluster(partitions=3), FakeClock()
        admin.add("orders", partitions=5)
        admin.hidden_looks = 4
        assert prepare(admin, clock).partitions == dict.fromkeys(AUXILIARY, 5)
        assert 0 < clock.seconds < 2

    def test_without_auto_creation_a_short_topic_is_an_error_with_the_command(self) -> None:
        admin = good_cluster(partitions=3)
        admin.add("orders", partitions=5)
        text = refusal(admin, auto_create_topics=False)
        assert text.count("partitions is 3 and must be 5: orders has 5") == 3
        assert admin.grown == []
        assert commands(text) == [
            shlex.split(f"kafka-topics.sh --bootstrap-server broker:9092 --alter --topic {name} --partitions 5")
            for name in AUXILIARY
        ]

    def test_a_refused_growth_says_why_and_prints_the_commands(self) -> None:
        admin = good_cluster(partitions=3)
        admin.add("orders", partitions=5)
        admin.failures["grow_topic"] = [ClientError("TopicAuthorizationFailed")]
        text = refusal(admin)
        assert "could not grow topic retry-orders: ClientError: TopicAuthorizationFailed" in text
        assert len(commands(text)) == 3

    @pytest.mark.parametrize("configured", [2, 5])
    def test_an_explicit_count_that_differs_is_an_error_and_never_grown(self, configured: int) -> None:
        admin = good_cluster(partitions=3)
        text = refusal(admin, retry_topic_partitions=configured)
        assert (
            text.count(f"partitions is 3 and must be {configured}: the count never changes while keys are locked") == 3
        )
        assert "Set retry_topic_partitions to 3" in text
        assert commands(text) == []
        assert admin.grown == []

    def test_an_explicit_count_may_be_below_or_above_the_source(self) -> None:
        for count in (2, 7):
            admin = FakeAdmin()
            admin.add("orders", partitions=4)
            ready = prepare(admin, retry_topic_partitions=count)
            assert [ready.partition_for(p) for p in range(4)] == [p % count for p in range(4)]

    def test_a_source_partition_without_its_partner_has_no_place(self) -> None:
        """The source may grow after the topics were prepared."""
        ready = prepare(good_cluster(partitions=3))
        assert [ready.partition_for(p) for p in range(5)] == [0, 1, 2, None, None]
