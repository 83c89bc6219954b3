"""Where topics are only looked at: what is missing is told, with the commands that create it."""

from __future__ import annotations

from kafetrain.topic_rules import commands_for
from kafetrain.topic_setup import verify_topics
from tests.unit.fakes import FakeAdmin
from tests.unit.topic_setup.clusters import (
    AUXILIARY,
    KEEP_ALL,
    commands,
    good_cluster,
    options_of,
    prepare,
    refusal,
    settings,
)


class TestMissing:
    def test_a_source_topic_that_does_not_exist_is_an_error_and_nothing_is_created(self) -> None:
        admin = FakeAdmin()
        text = refusal(admin)
        assert text.startswith("orders does not exist: the cluster at broker:9092 does not have it")
        assert "Check the name and bootstrap_servers" in text
        assert admin.created == []

    def test_without_auto_creation_the_error_prints_the_commands(self) -> None:
        admin = FakeAdmin()
        admin.add("orders", partitions=6)
        text = refusal(admin, auto_create_topics=False, replication_factor=3)
        assert admin.created == []
        assert all(f"{name} does not exist" in text for name in AUXILIARY)
        first, second, third = commands(text)
        head = ["kafka-topics.sh", "--bootstrap-server", "broker:9092", "--create", "--if-not-exists", "--topic"]
        sizes = ["--partitions", "6", "--replication-factor", "3"]
        assert first[: len(head) + 5] == [*head, "retry-orders", *sizes]
        assert options_of(second) == {
            "cleanup.policy=compact,delete",
            "retention.ms=-1",
            "retention.bytes=-1",
            "segment.ms=3600000",
            "segment.bytes=33554432",
            "min.compaction.lag.ms=600000",
            "delete.retention.ms=86400000",
        }
        assert options_of(first) == options_of(third)
        assert options_of(first) == {
            "cleanup.policy=delete",
            "retention.ms=-1",
            "retention.bytes=-1",
            "max.message.bytes=1114124",
        }

    def test_the_commands_mention_that_a_secured_cluster_needs_a_login(self) -> None:
        admin = FakeAdmin()
        admin.add("orders")
        text = refusal(admin, auto_create_topics=False, security_protocol="SSL")
        assert all(command[3:5] == ["--command-config", "client.properties"] for command in commands(text))

    def test_the_broker_chooses_the_replication_where_no_setting_does(self) -> None:
        admin = FakeAdmin()
        admin.add("orders")
        assert "--replication-factor" not in refusal(admin, auto_create_topics=False)


class TestVerifyOnly:
    def test_it_lists_everything_and_changes_nothing(self) -> None:
        admin = FakeAdmin()
        admin.add("orders", partitions=6)
        admin.add("retry-orders", 4, KEEP_ALL)
        problems = verify_topics(admin, settings(), "orders")
        assert [(p.topic, p.setting, p.is_warning) for p in problems] == [
            ("retry-orders", "partitions", False),
            ("retry-orders", "max.message.bytes", True),
            ("redirect-orders", "topic", False),
            ("dlq-orders", "topic", False),
        ]
        assert (admin.created, admin.grown) == ([], [])
        assert len(commands_for(problems, settings())) == 4

    def test_a_missing_source_topic_is_the_only_problem(self) -> None:
        (problem,) = verify_topics(FakeAdmin(), settings(), "orders")
        assert (problem.topic, problem.value, problem.is_warning) == ("orders", "does not exist", False)

    def test_a_good_cluster_has_no_problems(self) -> None:
        assert verify_topics(good_cluster(), settings(), "orders") == []

    def test_what_it_would_create_is_good(self) -> None:
        """Creation and verification agree."""
        admin = FakeAdmin()
        admin.add("orders", configs={"max.message.bytes": "3000000"})
        prepare(admin)
        assert verify_topics(admin, settings(), "orders") == []

    def test_a_problem_as_json_has_everything(self) -> None:
        admin = good_cluster()
        admin.configs["dlq-orders"]["retention.ms"] = "1000"
        (problem,) = verify_topics(admin, settings(), "orders")
        assert problem.as_json() == {
            "topic": "dlq-orders",
            "setting": "retention.ms",
            "value": "1000",
            "needed": "-1",
            "reason": "records would expire, and be lost",
            "level": "error",
            "command": (
                "kafka-configs.sh --bootstrap-server broker:9092 --alter --entity-type topics --entity-name "
                "dlq-orders --add-config retention.ms=-1"
            ),
        }
