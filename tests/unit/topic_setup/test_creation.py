"""Creating the auxiliary topics, against a cluster in memory."""

from __future__ import annotations

import pytest

from kafetrain.client.ports import ClientError
from kafetrain.errors import TransientError
from tests.unit.fakes import FakeAdmin, FakeClock
from tests.unit.topic_setup.clusters import AUXILIARY, COMPACTED, ROOMY, commands, good_cluster, prepare, refusal


class TestCreation:
    def test_missing_topics_are_created_with_the_partitions_of_the_source(self) -> None:
        admin = FakeAdmin()
        admin.add("orders", partitions=6, topic_id="id-1")
        ready = prepare(admin)
        assert ready.created == tuple(AUXILIARY)
        assert ready.partitions == dict.fromkeys(AUXILIARY, 6)
        assert (ready.source_partitions, ready.topic_id, ready.names.source) == (6, "id-1", "orders")
        assert ready.warnings == ()

    def test_they_keep_everything_and_only_locks_are_compacted(self) -> None:
        admin = FakeAdmin()
        admin.add("orders", configs={"max.message.bytes": "5000000"})
        prepare(admin)
        specs = {spec.name: spec.configs for spec in admin.created}
        record_configs = {
            "cleanup.policy": "delete",
            "retention.ms": "-1",
            "retention.bytes": "-1",
            "max.message.bytes": "5065536",
        }
        assert specs == {
            "retry-orders": record_configs,
            "dlq-orders": record_configs,
            "redirect-orders": {
                "cleanup.policy": "compact,delete",
                "retention.ms": "-1",
                "retention.bytes": "-1",
                "segment.ms": "3600000",
                "segment.bytes": "33554432",
                "min.compaction.lag.ms": "600000",
                "delete.retention.ms": "86400000",
            },
        }

    def test_room_for_headers_stops_at_what_kafka_can_express(self) -> None:
        admin = FakeAdmin()
        admin.add("orders", configs={"max.message.bytes": str(2**31 - 1)})
        prepare(admin)
        assert admin.created[0].configs["max.message.bytes"] == str(2**31 - 1)

    def test_count_and_replication_follow_the_settings(self) -> None:
        admin = FakeAdmin()
        admin.add("orders", partitions=6, replication_factor=3)
        prepare(admin, retry_topic_partitions=2, replication_factor=3)
        assert {(spec.partitions, spec.replication_factor) for spec in admin.created} == {(2, 3)}

    def test_only_what_is_missing_is_created(self) -> None:
        admin = good_cluster()
        del admin.topics["dlq-orders"]
        assert prepare(admin).created == ("dlq-orders",)
        assert [spec.name for spec in admin.created] == ["dlq-orders"]

    def test_where_all_is_well_nothing_is_changed(self, log: list[str]) -> None:
        admin = good_cluster()
        assert prepare(admin).created == ()
        assert (admin.created, admin.grown, log) == ([], [], [])

    def test_a_broker_that_refuses_small_segments_gets_none(self, log: list[str]) -> None:
        admin = FakeAdmin(refused=frozenset({"segment.bytes"}))
        admin.add("orders")
        ready = prepare(admin)
        (redirect,) = (spec for spec in admin.created if spec.name == "redirect-orders")
        assert not {"segment.bytes", "segment.ms"} & redirect.configs.keys()
        assert redirect.configs["cleanup.policy"] == "compact,delete"
        assert len(ready.warnings) == 1
        assert "redirect-orders: created without segment.ms, segment.bytes" in ready.warnings[0]
        assert log == list(ready.warnings)

    def test_a_refused_creation_says_why_and_prints_the_commands(self) -> None:
        admin = FakeAdmin(refused=frozenset({"retention.ms"}))
        admin.add("orders")
        text = refusal(admin)
        assert "could not create topic retry-orders: ClientError: retry-orders: PolicyViolation: retention.ms" in text
        assert [command[6] for command in commands(text)] == AUXILIARY
        assert "set auto_create_topics to false" in text

    def test_a_creation_that_the_cluster_cannot_do_now_is_no_configuration_error(self) -> None:
        admin = FakeAdmin(failures={"create_topics": [ClientError("no controller", retriable=True)]})
        admin.add("orders")
        with pytest.raises(TransientError, match="could not create topic retry-orders: ClientError: no controller"):
            prepare(admin)

    def test_it_waits_until_the_new_topics_can_be_seen(self) -> None:
        admin, clock = FakeAdmin(hidden_looks=5), FakeClock()
        admin.add("orders")
        assert prepare(admin, clock).created == tuple(AUXILIARY)
        assert 0 < clock.seconds < 2

    def test_it_does_not_wait_for_ever(self) -> None:
        admin, clock = FakeAdmin(hidden_looks=10**6), FakeClock()
        admin.add("orders")
        with pytest.raises(TransientError, match="waited 30 s until retry-orders, redirect-orders, dlq-orders can be"):
            prepare(admin, clock)
        assert 30 <= clock.seconds < 31

    def test_a_cluster_that_is_away_for_a_moment_is_asked_again(self) -> None:
        away = ClientError("not available", retriable=True)
        admin = good_cluster()
        admin.failures = {"describe_topics": [away, away], "topic_configs": [away]}
        assert prepare(admin).created == ()

    def test_a_cluster_that_stays_away_is_an_error(self) -> None:
        admin = good_cluster()
        admin.failures = {"describe_topics": [ClientError("not available", retriable=True)] * 1000}
        with pytest.raises(TransientError, match="ClientError: not available"):
            prepare(admin)

    def test_an_instance_that_creates_them_at_the_same_moment_is_fine(self) -> None:
        admin = FakeAdmin()
        admin.add("orders", partitions=4)
        admin.before["create_topics"] = lambda: create_as_another_instance(admin, partitions=4)
        ready = prepare(admin)
        assert admin.created == [], "the other one was faster"
        assert ready.partitions == dict.fromkeys(AUXILIARY, 4)

    def test_what_another_instance_created_meanwhile_is_verified_too(self) -> None:
        """One that was configured otherwise must not win unseen."""
        admin = FakeAdmin()
        admin.add("orders", partitions=4)
        admin.before["create_topics"] = lambda: create_as_another_instance(admin, partitions=2)
        text = refusal(admin, retry_topic_partitions=4)
        assert text.count("partitions is 2 and must be 4") == 3

    def test_a_source_topic_that_goes_meanwhile_is_no_crash(self) -> None:
        admin = FakeAdmin()
        admin.add("orders")
        admin.before["create_topics"] = lambda: admin.topics.clear()
        with pytest.raises(TransientError):
            prepare(admin)


def create_as_another_instance(admin: FakeAdmin, partitions: int) -> None:
    admin.add("retry-orders", partitions, ROOMY)
    admin.add("redirect-orders", partitions, COMPACTED)
    admin.add("dlq-orders", partitions, ROOMY)
