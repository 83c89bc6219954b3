"""Verifying the auxiliary topics, against a cluster in memory."""

from __future__ import annotations

import re
import shlex

import pytest

from kafetrain.client.ports import ClientError
from kafetrain.topic_rules import commands_for
from kafetrain.topic_setup import verify_topics
from tests.unit.fakes import FakeAdmin
from tests.unit.topic_setup.clusters import AUXILIARY, commands, good_cluster, prepare, refusal, settings

ERRORS = [
    ("retry-orders", "retention.ms", "604800000", "-1"),
    ("redirect-orders", "retention.ms", "604800000", "-1"),
    ("dlq-orders", "retention.ms", "604800000", "-1"),
    ("retry-orders", "retention.bytes", "1073741824", "-1"),
    ("redirect-orders", "retention.bytes", "1073741824", "-1"),
    ("dlq-orders", "retention.bytes", "1073741824", "-1"),
    ("retry-orders", "cleanup.policy", "compact", "delete"),
    ("dlq-orders", "cleanup.policy", "compact,delete", "delete"),
    ("redirect-orders", "cleanup.policy", "delete", "compact,delete"),
    ("redirect-orders", "cleanup.policy", "", "compact,delete"),
]


WARNINGS = [
    ("redirect-orders", "cleanup.policy", "compact", "compact,delete"),
    ("redirect-orders", "min.compaction.lag.ms", "0", "600000"),
    ("redirect-orders", "delete.retention.ms", "1000", "86400000"),
    ("retry-orders", "max.message.bytes", "1048588", "1114124"),
    ("dlq-orders", "max.message.bytes", "1048588", "1114124"),
    ("retry-orders", "min.insync.replicas", "1", "2"),
    ("redirect-orders", "min.insync.replicas", "1", "2"),
    ("dlq-orders", "min.insync.replicas", "1", "2"),
]


class TestVerification:
    @pytest.mark.parametrize(("topic", "setting", "value", "needed"), ERRORS)
    def test_a_setting_that_breaks_a_promise_is_an_error_with_the_command(
        self, topic: str, setting: str, value: str, needed: str
    ) -> None:
        admin = good_cluster()
        admin.configs[topic][setting] = value
        text = refusal(admin)
        assert f"{topic}: {setting} is {value or 'empty'} and must be {needed}: " in text
        argument = f"{setting}=[{needed}]" if "," in needed else f"{setting}={needed}"
        expected = ["kafka-configs.sh", "--bootstrap-server", "broker:9092", "--alter", "--entity-type", "topics"]
        assert commands(text) == [[*expected, "--entity-name", topic, "--add-config", argument]]

    @pytest.mark.parametrize(("topic", "setting", "value", "needed"), WARNINGS)
    def test_a_setting_that_only_costs_is_a_warning(
        self, topic: str, setting: str, value: str, needed: str, log: list[str]
    ) -> None:
        admin = good_cluster()
        if setting == "min.insync.replicas":
            for name in ("orders", *AUXILIARY):
                admin.configs[name][setting] = needed
        admin.configs[topic][setting] = value
        ready = prepare(admin)
        assert len(ready.warnings) == 1
        assert f"{topic}: {setting} is {value} and should be {needed}: " in ready.warnings[0]
        assert log == list(ready.warnings)

    def test_fewer_replicas_than_the_source_are_a_warning(self) -> None:
        ready = prepare(good_cluster(replication_factor=3))
        assert [w.split(":")[0] for w in ready.warnings] == AUXILIARY
        assert all("replication factor is 1 and should be 3" in w for w in ready.warnings)

    def test_more_than_needed_is_fine(self) -> None:
        admin = good_cluster()
        admin.configs["redirect-orders"] |= {"min.compaction.lag.ms": "700000", "delete.retention.ms": "9" * 12}
        admin.configs["retry-orders"] |= {"max.message.bytes": "9999999", "min.insync.replicas": "2"}
        assert prepare(admin).warnings == ()

    def test_retention_without_effect_is_a_warning_and_comes_with_the_advice_that_gives_it_effect(self) -> None:
        """Adding "delete" alone, as the advice for the policy says, would make locks expire."""
        admin = good_cluster()
        admin.configs["redirect-orders"] |= {"cleanup.policy": "compact", "retention.ms": "1000"}
        assert len(prepare(admin).warnings) == 2
        (command,) = commands_for(verify_topics(admin, settings(), "orders"), settings())
        assert shlex.split(command)[-1] == "cleanup.policy=[compact,delete],retention.ms=-1"

    @pytest.mark.parametrize("name", ["retry-orders", "dlq-orders"])
    def test_a_compacted_topic_is_given_delete_only_together_with_endless_retention(self, name: str) -> None:
        admin = good_cluster()
        admin.configs[name] |= {"cleanup.policy": "compact", "retention.ms": "1000"}
        (command,) = commands(refusal(admin))
        assert command[-1] == "cleanup.policy=delete,retention.ms=-1"

    def test_one_round_of_commands_leaves_nothing_to_say(self) -> None:
        admin = FakeAdmin()
        for name in ("orders", *AUXILIARY):
            admin.add(name)
        for problem in verify_topics(admin, settings(), "orders"):
            admin.configs[problem.topic] |= problem.configs
        assert verify_topics(admin, settings(), "orders") == []

    def test_everything_wrong_is_in_one_error_with_one_command_per_topic(self) -> None:
        admin = FakeAdmin()
        admin.add("orders", partitions=6)
        admin.add("retry-orders", partitions=4, configs={"retention.bytes": "1000"})
        admin.add("redirect-orders", partitions=6)
        text = refusal(admin, auto_create_topics=False)
        for part in (
            "retry-orders: partitions is 4 and must be 6",
            "retry-orders: retention.ms is 604800000 and must be -1",
            "retry-orders: retention.bytes is 1000 and must be -1",
            "redirect-orders: cleanup.policy is delete and must be compact,delete",
            "redirect-orders: retention.ms is 604800000 and must be -1",
            "dlq-orders does not exist",
        ):
            assert part in text
        assert [(command[0], re.sub(r"\W", "", command[3])) for command in commands(text)] == [
            ("kafka-topics.sh", "alter"),
            ("kafka-topics.sh", "create"),
            ("kafka-configs.sh", "alter"),
            ("kafka-configs.sh", "alter"),
        ]
        assert commands(text)[2][-1] == "retention.ms=-1,retention.bytes=-1"
        assert commands(text)[3][-1] == "cleanup.policy=[compact,delete],retention.ms=-1"

    def test_an_error_comes_before_anything_is_changed(self) -> None:
        admin = good_cluster()
        del admin.topics["dlq-orders"]
        admin.topics["orders"] = admin.topics["orders"].__class__("orders", 9, 1)
        admin.configs["retry-orders"]["retention.ms"] = "1000"
        assert "dlq-orders" not in refusal(admin)
        assert (admin.created, admin.grown) == ([], [])

    def test_a_cluster_that_does_not_tell_settings_is_a_warning(self) -> None:
        admin = FakeAdmin(secret=["orders", *AUXILIARY])
        admin.add("orders")
        ready = prepare(admin)
        assert ready.created == tuple(AUXILIARY)
        assert all("max.message.bytes" not in spec.configs for spec in admin.created), "the source's is not known"
        assert [warning.split(":")[0] for warning in ready.warnings] == [
            f"{name} is not verified" for name in ("orders", *AUXILIARY)
        ]
        assert "the cluster does not tell its settings" in ready.warnings[0]
        assert "may not DESCRIBE_CONFIGS" in ready.warnings[0]

    def test_what_the_cluster_does_tell_is_verified_even_if_it_hides_the_rest(self) -> None:
        admin = good_cluster()
        admin.secret = ["orders"]
        admin.configs["dlq-orders"]["retention.ms"] = "1000"
        assert "dlq-orders: retention.ms is 1000 and must be -1" in refusal(admin)

    def test_a_new_topic_whose_settings_are_not_told_yet_is_asked_for_again(self) -> None:
        """Brokers learn of it one after the other; taking the first answer would leave it unverified."""
        admin = FakeAdmin()
        admin.add("orders")
        slow = ClientError("UnknownTopicOrPartition")

        def created() -> None:
            admin.failures["topic_configs"] = [slow] * 6

        admin.before["create_topics"] = created
        assert prepare(admin).warnings == ()

    def test_a_setting_that_an_old_broker_does_not_have_is_not_missed(self) -> None:
        admin = good_cluster()
        for name in ("orders", *AUXILIARY):
            admin.configs[name] = {"cleanup.policy": admin.configs[name]["cleanup.policy"]}
        assert prepare(admin).warnings == ()
