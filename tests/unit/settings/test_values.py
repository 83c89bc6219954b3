"""Settings: what each value may be."""

from __future__ import annotations

from datetime import timedelta

import pytest

from kafetrain.backoff_policy import ConstantBackoff, ExponentialBackoff
from tests.unit.settings.made import error_of, settings


class TestValues:
    @pytest.mark.parametrize("value", ["a:1,b:2", " a:1 , b:2 ,", ["a:1", "b:2"], ("a:1", "b:2")])
    def test_servers_are_a_list_or_text_with_commas(self, value: object) -> None:
        assert settings(bootstrap_servers=value).bootstrap_servers == ["a:1", "b:2"]

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ("localhost", "'localhost' has no port"),
            (["a:1", "b"], "'b' has no port"),
            ("[::1]", "'[::1]' has no port"),
            ("a:", "port ''"),
            ("a:http", "port 'http'"),
            ("a:0", "port '0'"),
            ("a:65536", "port '65536'"),
            ("a:٣", "port '٣'"),
            (":9092", "no host name"),
            ("a b:9092", "no host name"),
            ("::1:9092", "[::1]:9092"),
            ("SASL_SSL://a:9092", "has a scheme"),
            ("", "no address"),
            (" , ", "no address"),
            ([], "no address"),
            (9092, "no list of addresses"),
            ([9092], "no list of addresses"),
        ],
    )
    def test_a_server_is_host_and_port(self, value: object, reason: str) -> None:
        text = error_of(bootstrap_servers=value)
        assert text.startswith("bootstrap_servers = ")
        assert reason in text
        assert "it may be host:port" in text

    @pytest.mark.parametrize(
        "value", [timedelta(seconds=90), "90s", "1m30s", "PT1M30S", "PT90S", "90", 90, 90.0, "90000ms", "1.5m"]
    )
    def test_a_timeout_may_be_written_in_many_ways(self, value: object) -> None:
        assert settings(shutdown_timeout=value).shutdown_timeout == timedelta(seconds=90)

    @pytest.mark.parametrize("name", ["shutdown_timeout", "state_restore_timeout"])
    @pytest.mark.parametrize("value", [0, "-1", "0s", timedelta(seconds=-1), "25h", "soon", None, True, float("nan")])
    def test_a_timeout_is_above_zero_and_at_most_a_day(self, name: str, value: object) -> None:
        text = error_of(**{name: value})
        assert text.startswith(f"{name} = ")
        assert text.endswith("it may be a duration such as 30s, up to one day")

    @pytest.mark.parametrize("value", [None, "none", "None", "null"])
    def test_retries_may_have_no_limit(self, value: object) -> None:
        assert settings(max_retries=value).max_retries is None

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("max_retries", 0),
            ("concurrency", 1),
            ("max_held_records", 1),
            ("max_held_bytes", 1024),
            ("retry_topic_partitions", 0),
            ("replication_factor", -1),
            ("replication_factor", 1),
            ("replication_factor", 32767),
            ("auto_offset_reset", "latest"),
        ],
    )
    def test_values_at_the_bounds_are_fine(self, name: str, value: object) -> None:
        assert getattr(settings(**{name: value}), name) == value
        assert getattr(settings(**{name: str(value)}), name) == value

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("max_retries", -1),
            ("max_retries", 1.5),
            ("max_retries", True),
            ("max_retries", "many"),
            ("concurrency", 0),
            ("concurrency", True),
            ("concurrency", None),
            ("max_held_records", 0),
            ("max_held_bytes", 1023),
            ("max_held_bytes", "lots"),
            ("retry_topic_partitions", -1),
            ("retry_topic_partitions", False),
            ("replication_factor", 0),
            ("replication_factor", -2),
            ("replication_factor", 32768),
            ("replication_factor", True),
            ("auto_create_topics", "perhaps"),
            ("free_on_dlq", 7),
            ("auto_offset_reset", "none"),
            ("group_id", 5),
            ("group_id", ""),
            ("group_id", " billing"),
            ("retry_topic_prefix", ""),
            ("redirect_topic_prefix", "a/b"),
            ("dlq_topic_prefix", "dead letters"),
            ("backoff", 5),
            ("backoff", {"policy": "none"}),
            ("backoff", "exponential"),
            ("backoff", ExponentialBackoff),
            ("security_protocol", "TLS"),
            ("sasl_mechanism", "DIGEST"),
            ("client", "librdkafka"),
            ("delivery", "exactly-once"),
        ],
    )
    def test_a_wrong_value_is_named_with_what_it_was_and_what_it_may_be(self, name: str, value: object) -> None:
        text = error_of(**{name: value})
        assert text.startswith(f"{name} = {value!r}")
        assert "; it may be " in text
        assert text.count("it may be") == 1
        assert "pydantic" not in text

    def test_a_long_value_is_cut(self) -> None:
        assert len(error_of(group_id="x" * 5000 + " ")) < 400

    def test_backoff_may_be_any_callable(self) -> None:
        def policy(attempt: int) -> timedelta:
            return timedelta(seconds=attempt)

        assert settings(backoff=policy).backoff is policy

    def test_backoff_may_be_a_mapping(self) -> None:
        read = settings(backoff={"policy": "constant", "initial": "2s"})
        assert read.backoff == ConstantBackoff(timedelta(seconds=2))

    def test_a_wrong_backoff_says_which_part(self) -> None:
        assert "multiplier must be at least 1, not 0.5" in error_of(backoff={"multiplier": 0.5})


class TestTransactions:
    def test_a_restore_outlasts_the_open_transaction_of_an_instance_that_died(self) -> None:
        assert settings(delivery="transactional", state_restore_timeout="20s").delivery == "transactional"
        text = error_of(delivery="transactional", state_restore_timeout="19s")
        assert 'it must be at least 20s with delivery="transactional"' in text
        for client, name in (("kafka-python", "transaction_timeout_ms"), ("confluent", "transaction.timeout.ms")):
            longer = {"delivery": "transactional", "client": client, "client_options": {name: 25_000}}
            assert "at least 35s" in error_of(**longer)
            assert settings(**longer, state_restore_timeout="1m").delivery == "transactional"
        assert settings(state_restore_timeout="1s").delivery == "at-least-once"

    @pytest.mark.parametrize("value", [0, "10s", True])
    def test_their_timeout_is_a_number_of_milliseconds(self, value: object) -> None:
        for client, name in (("kafka-python", "transaction_timeout_ms"), ("confluent", "transaction.timeout.ms")):
            text = error_of(delivery="transactional", client=client, client_options={name: value})
            assert f"{name} must be a whole number of milliseconds" in text
