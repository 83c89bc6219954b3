"""Creating, growing and verifying the auxiliary topics, against a cluster in memory."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from loguru import logger

from kafetrain.client.ports import ClientError
from kafetrain.errors import ConfigurationError, TransientError
from kafetrain.settings import Settings
from kafetrain.topic_rules import commands_for
from kafetrain.topic_setup import PreparedTopics, prepare_topics, verify_topics
from tests.unit.fakes import FakeAdmin, FakeClock

AUXILIARY = ["retry-orders", "redirect-orders", "dlq-orders"]
KEEP_ALL = {"retention.ms": "-1", "retention.bytes": "-1"}
COMPACTED = {
    "cleanup.policy": "compact,delete",
    "min.compaction.lag.ms": "600000",
    "delete.retention.ms": "86400000",
    **KEEP_ALL,
}
ROOMY = {"max.message.bytes": str(1_048_588 + 65_536), **KEEP_ALL}


def settings(**values: Any) -> Settings:
    return Settings(**{"group_id": "billing", "bootstrap_servers": "broker:9092", "_env_file": None, **values})


def good_cluster(partitions: int = 3, **source: Any) -> FakeAdmin:
    """A source topic whose auxiliary topics are as they should be."""
    admin = FakeAdmin()
    admin.add("orders", partitions, **source)
    admin.add("retry-orders", partitions, ROOMY)
    admin.add("redirect-orders", partitions, COMPACTED)
    admin.add("dlq-orders", partitions, ROOMY)
    return admin


def prepare(admin: FakeAdmin, clock: FakeClock | None = None, **values: Any) -> PreparedTopics:
    clock = clock or FakeClock()
    return prepare_topics(admin, settings(**values), "orders", clock=clock, wait=clock.wait)


def refusal(admin: FakeAdmin, **values: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        prepare(admin, **values)
    return str(caught.value)


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    messages: list[str] = []
    logger.enable("kafetrain")
    sink = logger.add(lambda message: messages.append(message.record["message"]), level="WARNING")
    yield messages
    logger.remove(sink)


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

    def test_where_all_is_well_nothing_is_changed(self, warnings: list[str]) -> None:
        admin = good_cluster()
        assert prepare(admin).created == ()
        assert (admin.created, admin.grown, warnings) == ([], [], [])

    def test_a_broker_that_refuses_small_segments_gets_none(self, warnings: list[str]) -> None:
        admin = FakeAdmin(refused=frozenset({"segment.bytes"}))
        admin.add("orders")
        ready = prepare(admin)
        (redirect,) = (spec for spec in admin.created if spec.name == "redirect-orders")
        assert not {"segment.bytes", "segment.ms"} & redirect.configs.keys()
        assert redirect.configs["cleanup.policy"] == "compact,delete"
        assert len(ready.warnings) == 1
        assert "redirect-orders: created without segment.ms, segment.bytes" in ready.warnings[0]
        assert warnings == list(ready.warnings)

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


def commands(text: str) -> list[list[str]]:
    """The commands at the end of an error, as a shell would split them."""
    return [shlex.split(line) for line in text.splitlines() if line.startswith("  kafka-")]


def options_of(command: list[str]) -> set[str]:
    return {value for flag, value in itertools.pairwise(command) if flag == "--config"}


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
        self, topic: str, setting: str, value: str, needed: str, warnings: list[str]
    ) -> None:
        admin = good_cluster()
        if setting == "min.insync.replicas":
            for name in ("orders", *AUXILIARY):
                admin.configs[name][setting] = needed
        admin.configs[topic][setting] = value
        ready = prepare(admin)
        assert len(ready.warnings) == 1
        assert f"{topic}: {setting} is {value} and should be {needed}: " in ready.warnings[0]
        assert warnings == list(ready.warnings)

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
