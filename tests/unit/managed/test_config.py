"""Declarations: defaults, text as values, and one error for all that is wrong."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from kafetrain import ConfigurationError
from kafetrain.managed import ConsumerConfig, Registry


def declared(**changes: Any) -> ConsumerConfig:
    return ConsumerConfig(**{"job_name": "billing", "topic": "orders", "group_id": "g", "handler": print, **changes})


def test_the_defaults_keep_every_record() -> None:
    config = declared()
    assert (config.auto_commit, config.initial_offset, config.isolation_level) == (False, "latest", "read_committed")
    assert config.balance_strategies == ("round-robin",)
    assert (config.session_timeout, config.heartbeat_interval) == (timedelta(seconds=10), timedelta(seconds=3))
    assert config.max_processing_time == timedelta(milliseconds=100)
    assert config.max_message_bytes == 1024 * 1024
    assert [config.restart_backoff(error).total_seconds() for error in (1, 2, 3, 7, 9)] == [1, 2, 4, 60, 60]
    assert config.max_consecutive_errors == 10


def test_settings_follow_and_what_the_environment_says_of_the_client_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFETRAIN_CLIENT_OPTIONS", '{"client_id": "us", "session_timeout_ms": 1}')
    monkeypatch.setenv("KAFETRAIN_BOOTSTRAP_SERVERS", "there:1")
    settings = declared(session_timeout="6s", heartbeat_interval="2s", retry={"max_retries": 3}).settings()
    assert settings.bootstrap_servers == ["there:1"]
    assert (settings.auto_offset_reset, settings.max_retries) == ("latest", 3)
    assert settings.client_options == {
        "client_id": "us",
        "session_timeout_ms": 6000,
        "heartbeat_interval_ms": 2000,
        "max_partition_fetch_bytes": 1024 * 1024,
    }


def test_for_confluent_the_options_have_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("confluent_kafka")
    monkeypatch.setenv("KAFETRAIN_CLIENT", "confluent")
    monkeypatch.setenv("KAFETRAIN_CLIENT_OPTIONS", '{"client.id": "us"}')
    settings = declared(session_timeout="6s", client_options={"fetch.wait.max.ms": 5}).settings()
    assert settings.client == "confluent"
    assert settings.client_options == {
        "client.id": "us",
        "session.timeout.ms": 6000,
        "heartbeat.interval.ms": 3000,
        "max.partition.fetch.bytes": 1024 * 1024,
        "fetch.wait.max.ms": 5,
    }


@pytest.mark.parametrize(
    ("strategies", "part"),
    [("sticky", "knows no sticky"), (["cooperative-sticky", "range"], "cooperative-sticky only alone")],
)
def test_a_strategy_that_confluent_has_not_is_refused_when_it_is_registered(
    strategies: str | list[str], part: str
) -> None:
    pytest.importorskip("confluent_kafka")
    with pytest.raises(ConfigurationError, match=part):
        Registry().register_consumer(declared(client="confluent", balance_strategies=strategies))


def test_every_wrong_field_is_named_in_one_sentence() -> None:
    with pytest.raises(ConfigurationError) as caught:
        ConsumerConfig(
            job_name=" b",
            topic=[],
            bootstrap_servers="here",
            initial_offset="newest",
            sesion_timeout=1,
            concurrency=True,
        )
    text = str(caught.value)
    assert "\n" not in text
    for part in ("job_name", "topic", "group_id is missing", "'here' has no port", "newest", "concurrency"):
        assert part in text
    assert "sesion_timeout is unknown; did you mean session_timeout?" in text
    assert caught.value.__context__ is None, "pydantic's error keeps what was passed, which may be secret"


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"heartbeat_interval": "10s"}, "heartbeat_interval must be below session_timeout"),
        ({"retry": True, "auto_commit": True}, "auto_commit and retry exclude each other"),
        ({"retry": True, "isolation_level": "read_uncommitted"}, "retry needs isolation_level read_committed"),
        ({"retry": {"group_id": "other"}}, "retry has group_id"),
        ({"on_dead_letter": print}, "on_dead_letter needs retry"),
        ({"client": "franz"}, "client = 'franz'"),
        ({"handler": 3}, "must be callable"),
        ({"max_processing_time": "0s"}, "more than nothing"),
        ({"balance_strategies": "fair"}, "round-robin"),
        ({"max_message_bytes": 10}, "1024"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigurationError, match=part):
        declared(**changes)


def test_no_secret_is_in_an_error_or_a_repr() -> None:
    options = {"sasl_plain_password": "hunter2"}
    assert "hunter2" not in repr(declared(client_options=options))
    with pytest.raises(ConfigurationError) as caught:
        declared(client_options=[options])
    assert "hunter2" not in str(caught.value)


def test_a_registry_refuses_what_it_cannot_run() -> None:
    registry = Registry()
    with pytest.raises(ConfigurationError, match="no consumer is registered"):
        registry.start_all_consumers()
    registry.register_consumer(declared())
    with pytest.raises(ConfigurationError, match="job name 'billing' is taken"):
        registry.register_consumer(declared())
    with pytest.raises(ConfigurationError, match="'biling'; did you mean billing"):
        registry.set_consumer_switch("biling", True)
    with pytest.raises(ConfigurationError, match="has no handler"):
        registry.register_consumer(declared(job_name="x", handler=None))
    with pytest.raises(ConfigurationError, match="not str"):
        registry.register_consumer("billing")  # type: ignore[arg-type]  # the mistake that is tested
    with pytest.raises(ConfigurationError, match="max_retry is unknown"):
        registry.register_consumer(declared(job_name="x", retry={"max_retry": 1}))
    assert [status.job_name for status in registry.statuses()] == ["billing"]
