"""Settings: defaults, where values come from, and one error for everything that is wrong."""

from __future__ import annotations

import ast
import inspect
import json
import os
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from loguru import logger
from pydantic import SecretStr, ValidationError

from kafetrain.backoff_policy import ConstantBackoff, ExponentialBackoff, LinearBackoff
from kafetrain.errors import ConfigurationError, NotRetriableError, RetriableError
from kafetrain.retriable import is_retriable
from kafetrain.settings import Settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.upper().startswith("KAFETRAIN_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    messages: list[str] = []
    logger.enable("kafetrain")
    sink = logger.add(lambda message: messages.append(message.record["message"]), level="WARNING")
    yield messages
    logger.remove(sink)


def settings(**values: Any) -> Settings:
    return Settings(**{"group_id": "billing", **values})


def error_of(**values: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        settings(**values)
    return str(caught.value)


class TestDefaults:
    def test_every_setting_has_its_documented_default(self) -> None:
        defaults = Settings(group_id="billing")
        assert {name: getattr(defaults, name) for name in Settings.model_fields} == {
            "bootstrap_servers": ["localhost:9092"],
            "group_id": "billing",
            "client": "kafka-python",
            "client_options": {},
            "security_protocol": None,
            "sasl_mechanism": None,
            "sasl_username": None,
            "sasl_password": None,
            "ssl_cafile": None,
            "ssl_certfile": None,
            "ssl_keyfile": None,
            "max_retries": 5,
            "maximum_attempts_age": None,
            "breaker": None,
            "backoff": ExponentialBackoff(timedelta(seconds=1), 2, timedelta(minutes=5), 0.1),
            "retry_topic_prefix": "retry",
            "redirect_topic_prefix": "redirect",
            "dlq_topic_prefix": "dlq",
            "topic_format": "{prefix}-{topic}",
            "retry_topic_partitions": 0,
            "replication_factor": -1,
            "auto_create_topics": True,
            "free_on_dlq": False,
            "state_restore_timeout": timedelta(seconds=30),
            "delivery": "at-least-once",
            "concurrency": 1,
            "max_held_records": 10_000,
            "max_held_bytes": 64 * 1024 * 1024,
            "shutdown_timeout": timedelta(seconds=10),
            "auto_offset_reset": "earliest",
            "retry_on": (Exception,),
            "never_retry_on": (),
        }

    def test_every_setting_explains_itself(self) -> None:
        """A docstring follows each field; the documentation is made from them."""
        (tree,) = ast.parse(inspect.getsource(Settings)).body
        assert isinstance(tree, ast.ClassDef)
        explained = {
            field.target.id
            for field, doc in zip(tree.body, tree.body[1:], strict=False)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            if isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant)
        }
        assert explained == set(Settings.model_fields)

    def test_the_retry_group_is_named_after_the_group(self) -> None:
        assert settings().retry_group_id == "billing-retry"

    def test_settings_cannot_be_changed(self) -> None:
        with pytest.raises(ValidationError, match="frozen"):
            settings().max_retries = 3

    def test_instances_share_no_list_or_mapping(self) -> None:
        options = {"fetch_max_wait_ms": 100}
        first, second = settings(client_options=options), settings()
        first.bootstrap_servers.append("other:1")
        options["fetch_max_wait_ms"] = 5
        assert second.bootstrap_servers == ["localhost:9092"]
        assert first.client_options == {"fetch_max_wait_ms": 100}


class TestSources:
    def test_the_environment_sets_everything_as_text(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, text in {
            "BOOTSTRAP_SERVERS": "a:9092, b:9093,[::1]:9094",
            "GROUP_ID": "from-env",
            "MAX_RETRIES": "none",
            "BACKOFF": '{"policy": "linear", "initial": "500ms", "step": "PT2S", "maximum": 60}',
            "STATE_RESTORE_TIMEOUT": "2m",
            "SHUTDOWN_TIMEOUT": "1.5",
            "MAX_HELD_BYTES": "8MiB",
            "AUTO_CREATE_TOPICS": "no",
            "CONCURRENCY": "8",
            "RETRY_ON": "OSError, json.JSONDecodeError",
            "NEVER_RETRY_ON": "subprocess.CalledProcessError",
            "SASL_PASSWORD": "hunter2",
            "SASL_USERNAME": "me",
            "SASL_MECHANISM": "PLAIN",
            "SECURITY_PROTOCOL": "SASL_SSL",
            "CLIENT_OPTIONS": '{"fetch_max_wait_ms": 100}',
        }.items():
            monkeypatch.setenv(f"KAFETRAIN_{name}", text)
        read = Settings()
        assert read.bootstrap_servers == ["a:9092", "b:9093", "[::1]:9094"]
        assert read.group_id == "from-env"
        assert read.max_retries is None
        assert read.backoff == LinearBackoff(timedelta(milliseconds=500), timedelta(seconds=2), timedelta(minutes=1))
        assert read.state_restore_timeout == timedelta(minutes=2)
        assert read.shutdown_timeout == timedelta(seconds=1.5)
        assert read.max_held_bytes == 8 * 1024 * 1024
        assert type(read.max_held_bytes) is int
        assert read.auto_create_topics is False
        assert read.concurrency == 8
        assert read.retry_on == (OSError, json.JSONDecodeError)
        assert read.never_retry_on == (subprocess.CalledProcessError,)
        assert read.sasl_password == SecretStr("hunter2")
        assert read.client_options == {"fetch_max_wait_ms": 100}

    def test_code_wins_over_the_environment_and_that_over_the_env_file(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / ".env").write_text("KAFETRAIN_GROUP_ID=file\nKAFETRAIN_CONCURRENCY=2\nKAFETRAIN_MAX_RETRIES=3\n")
        monkeypatch.setenv("KAFETRAIN_CONCURRENCY", "4")
        monkeypatch.setenv("KAFETRAIN_MAX_RETRIES", "4")
        read = Settings(max_retries=9)
        assert (read.group_id, read.concurrency, read.max_retries) == ("file", 4, 9)

    def test_an_env_file_that_serves_other_programs_too_is_fine(self, tmp_path: Path, warnings: list[str]) -> None:
        (tmp_path / ".env").write_text("DATABASE_URL=postgres://x\nGROUP_ID=theirs\nMAX_RETRIES=x\nconcurrency=0\n")
        read = settings()
        assert (read.group_id, read.max_retries, read.concurrency) == ("billing", 5, 1)
        assert warnings == []

    def test_an_unreadable_env_file_is_a_configuration_error(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_bytes(b"KAFETRAIN_GROUP_ID=\xff\xfe\n")
        with pytest.raises(ConfigurationError, match=r"the \.env file cannot be read"):
            Settings()

    def test_an_empty_variable_is_as_good_as_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KAFETRAIN_CONCURRENCY", "")
        assert settings().concurrency == 1

    @pytest.mark.parametrize("place", ["environment", ".env file"])
    def test_an_unknown_variable_is_warned_about_with_the_nearest_name(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, warnings: list[str], place: str
    ) -> None:
        if place == "environment":
            monkeypatch.setenv("KAFETRAIN_MAX_RETRYS", "3")
        else:
            (tmp_path / ".env").write_text("KAFETRAIN_MAX_RETRYS=3\n")
        assert settings().max_retries == 5
        assert len(warnings) == 1
        assert f"KAFETRAIN_MAX_RETRYS in the {place} is no setting" in warnings[0]
        assert "did you mean KAFETRAIN_MAX_RETRIES?" in warnings[0]
        assert "3" not in warnings[0], "what is in a variable may be a secret"

    def test_variables_of_the_test_fixtures_are_no_mistake(
        self, monkeypatch: pytest.MonkeyPatch, warnings: list[str]
    ) -> None:
        monkeypatch.setenv("KAFETRAIN_TEST_BROKERS", "localhost:9092")
        settings()
        assert warnings == []


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


class TestTopicNames:
    @pytest.mark.parametrize("value", ["{prefix}-{topic}", "{group}.{topic}.{prefix}", "x_{topic}{prefix}"])
    def test_a_format_names_prefix_and_topic_and_perhaps_the_group(self, value: str) -> None:
        assert settings(topic_format=value).topic_format == value

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ("retry", "{prefix} and {topic} must be in it"),
            ("{prefix}", "{topic} must be in it"),
            ("{topic}", "{prefix} must be in it"),
            ("{prefix}-{topc}", "{topc} is unknown; did you mean topic?"),
            ("{prefix}-{topic}-{}", "{} is unknown"),
            ("{prefix!r}-{topic}", "{prefix} is unknown"),
            ("{prefix:>9}-{topic}", "{prefix} is unknown"),
            ("{prefix.x}-{topic}", "{prefix.x} is unknown"),
            ("{prefix}/{topic}", "'/' has characters"),
            ("{prefix}-{topic}-{{x}}", "has characters"),
            ("{prefix}-{topic", "braces do not match"),
            ("", "must be in it"),
        ],
    )
    def test_any_other_format_is_refused(self, value: str, reason: str) -> None:
        text = error_of(topic_format=value)
        assert reason in text
        assert "it may be text with {prefix}, {topic} and perhaps {group}" in text

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ({"retry_topic_prefix": "dlq"}, "dlq_topic_prefix: 'dlq' is retry_topic_prefix already"),
            ({"redirect_topic_prefix": "retry"}, "redirect_topic_prefix: 'retry' is retry_topic_prefix already"),
            (
                {"retry_topic_prefix": "a.b", "dlq_topic_prefix": "a_b"},
                "dlq_topic_prefix: 'a_b' is retry_topic_prefix already",
            ),
        ],
    )
    def test_the_prefixes_must_differ(self, values: dict[str, str], expected: str) -> None:
        assert expected in error_of(**values)


class TestOneError:
    def test_everything_wrong_is_in_one_error(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            Settings(
                concurency=2,
                max_retries=-3,
                bootstrap_servers="localhost",
                topic_format="x",
                retry_topic_prefix="dlq",
                sasl_mechanism="PLAIN",
                retry_on="no.such.Error",
            )
        text = str(caught.value)
        for part in (
            "8 settings are wrong",
            "concurency is unknown; did you mean concurrency?",
            "group_id is missing: pass it, or set KAFETRAIN_GROUP_ID",
            "max_retries = -3",
            "'localhost' has no port",
            "topic_format = 'x'",
            "dlq_topic_prefix: 'dlq' is retry_topic_prefix already",
            "security_protocol: PLAINTEXT does not log in",
            "retry_on = 'no.such.Error'",
        ):
            assert part in text

    def test_an_unknown_name_without_a_near_one_lists_all(self) -> None:
        text = error_of(bogus=1)
        assert text.startswith("bogus is unknown; there are bootstrap_servers, group_id,")
        assert all(name in text for name in Settings.model_fields)

    def test_a_wrong_variable_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KAFETRAIN_CONCURRENCY", "many")
        assert error_of() == (
            "concurrency = 'many' (from KAFETRAIN_CONCURRENCY); it may be a whole number of at least 1"
        )

    @pytest.mark.parametrize(
        "values",
        [
            {"sasl_password": ["s3cr3t"]},
            {"client_options": '{"ssl_password": "s3cr3t"'},
            {"client_options": ["s3cr3t"]},
            {"client_options": {"ssl_password_of_mine": "s3cr3t"}},
            {"client_options": {"delivery_timeout_ms": "s3cr3t"}},
            {"client_options": {"group_id": "s3cr3t"}},
            {"sasl_password": "s3cr3t", "sasl_mechanism": "PLAIN"},
        ],
    )
    def test_no_secret_is_in_an_error_or_behind_it(self, values: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError) as caught:
            settings(**values)
        assert "s3cr3t" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None

    def test_no_secret_is_in_a_repr(self) -> None:
        read = settings(
            security_protocol="SASL_SSL",
            sasl_mechanism="PLAIN",
            sasl_username="me",
            sasl_password="s3cr3t",
            client_options={"ssl_password": "s3cr3t"},
        )
        assert "s3cr3t" not in f"{read!r} {read}"


LOGIN = {"sasl_mechanism": "PLAIN", "sasl_username": "me", "sasl_password": "secret"}


class TestSecurity:
    @pytest.mark.parametrize(
        "values",
        [
            {"security_protocol": "SSL"},
            {"security_protocol": "SSL", "ssl_certfile": Path("a.pem"), "ssl_keyfile": "b.pem"},
            {"security_protocol": "SASL_SSL", "ssl_cafile": "ca.pem", **LOGIN},
            {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "GSSAPI"},
            {
                "security_protocol": "SASL_SSL",
                "sasl_mechanism": "SCRAM-SHA-256",
                "client_options": {"sasl_plain_username": "me", "sasl_plain_password": "secret"},
            },
        ],
    )
    def test_what_fits_together_is_fine(self, values: dict[str, Any]) -> None:
        settings(**values)

    def test_a_path_may_be_a_path(self) -> None:
        assert settings(security_protocol="SSL", ssl_cafile=Path("ca.pem")).ssl_cafile == "ca.pem"

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            (LOGIN, "security_protocol: PLAINTEXT does not log in"),
            ({"security_protocol": "SSL", **LOGIN}, "security_protocol: SSL does not log in"),
            ({"security_protocol": "SASL_SSL"}, "sasl_mechanism: it is missing, and security_protocol SASL_SSL"),
            (
                {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_username": "me"},
                "sasl_password: it is missing, and sasl_mechanism PLAIN needs it",
            ),
            ({"ssl_cafile": "ca.pem"}, "security_protocol: PLAINTEXT does not encrypt"),
            ({"security_protocol": "SASL_PLAINTEXT", "ssl_cafile": "x", **LOGIN}, "does not encrypt"),
            ({"security_protocol": "SSL", "ssl_keyfile": "k"}, "ssl_certfile: it is missing"),
            (
                {"security_protocol": "SSL", "client_options": {"security_protocol": "SSL"}},
                "security_protocol: it is in client_options too, as security_protocol",
            ),
        ],
    )
    def test_what_does_not_fit_together_is_refused(self, values: dict[str, Any], expected: str) -> None:
        assert expected in error_of(**values)


class TestClientOptions:
    def test_an_unknown_option_is_named_with_the_nearest(self) -> None:
        text = error_of(client_options={"fetch_max_wait": 1})
        assert text.startswith("client_options: fetch_max_wait is known to no kafka-python client; did you mean ")
        assert "fetch_max_wait_ms" in text

    def test_an_option_in_the_words_of_kafka_itself_finds_its_name(self) -> None:
        assert "did you mean session_timeout_ms" in error_of(client_options={"session.timeout.ms": 1})

    @pytest.mark.parametrize("name", ["group_id", "enable_auto_commit", "bootstrap_servers"])
    def test_an_option_that_kafetrain_must_set_is_refused(self, name: str) -> None:
        assert error_of(client_options={name: "x"}).startswith(f"client_options: {name} is set by kafetrain itself")

    def test_a_write_must_end_before_the_session_does(self) -> None:
        text = error_of(client_options={"delivery_timeout_ms": 30_000, "session_timeout_ms": 30_000})
        assert "client_options: delivery_timeout_ms (30000) must be below session_timeout_ms (30000)" in text
        settings(client_options={"delivery_timeout_ms": 29_999, "session_timeout_ms": 30_000})

    @pytest.mark.parametrize(
        ("options", "limit"),
        [
            ({"delivery_timeout_ms": 45_000}, "session_timeout_ms (45000)"),
            ({"delivery_timeout_ms": 20_000, "max_poll_interval_ms": 15_000}, "max_poll_interval_ms (15000)"),
            ({"max_poll_interval_ms": 15_000}, "max_poll_interval_ms (15000)"),
        ],
    )
    def test_a_write_must_end_before_the_default_limits_too(self, options: dict[str, int], limit: str) -> None:
        assert f"must be below {limit}, or a late lock lands after the next owner" in error_of(client_options=options)

    def test_a_shorter_session_alone_is_fine_since_the_client_follows_it(self) -> None:
        settings(client_options={"session_timeout_ms": 6_000})


class TestRetriable:
    @pytest.mark.parametrize(
        "value", [(OSError, KeyError), [OSError, KeyError], "OSError,KeyError", ["OSError", KeyError]]
    )
    def test_error_classes_are_classes_or_names(self, value: object) -> None:
        assert settings(retry_on=value).retry_on == (OSError, KeyError)

    def test_one_class_needs_no_tuple(self) -> None:
        assert settings(never_retry_on=KeyError).never_retry_on == (KeyError,)

    @pytest.mark.parametrize(
        ("name", "found"),
        [
            ("builtins.OSError", OSError),
            ("json.JSONDecodeError", json.JSONDecodeError),
            ("json.decoder.JSONDecodeError", json.JSONDecodeError),
            ("tests.unit.test_settings.Outer.InnerError", "Outer.InnerError"),
        ],
    )
    def test_a_name_has_dots_down_to_the_class(self, name: str, found: Any) -> None:
        (read,) = settings(retry_on=name).retry_on
        assert read.__qualname__ == (found if isinstance(found, str) else found.__qualname__)

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ("no_such_module.Error", "no_such_module.Error cannot be imported"),
            ("json.NoSuchError", "json has no NoSuchError"),
            ("json.decoder.nope.Error", "has no nope"),
            ("ValueErorr", "did you mean ValueError?"),
            ("json.loads", "is not a class"),
            ("json.JSONDecoder", "is no error class"),
            ("KeyboardInterrupt", "only subclasses of Exception"),
            ([BaseException], "only subclasses of Exception"),
            ([ValueError()], "is not a class"),
            (5, "no list of error classes"),
            ("tests.unit.no_such_module.Error", "tests.unit has no no_such_module.Error"),
        ],
    )
    def test_what_is_no_error_class_says_why(self, value: object, reason: str) -> None:
        text = error_of(retry_on=value)
        assert text.startswith("retry_on = ")
        assert reason in text

    def test_a_module_that_fails_on_import_says_how(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "broken_here.py").write_text("1 / 0")
        (tmp_path / "needs_more.py").write_text("import not_installed_here")
        monkeypatch.syspath_prepend(tmp_path)
        assert "importing broken_here failed: ZeroDivisionError" in error_of(retry_on="broken_here.Error")
        assert "No module named 'not_installed_here'" in error_of(retry_on="needs_more.Error")

    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (ValueError(), True),
            (RetriableError("later"), True),
            (RetriableError("later", retry=False), False),
            (NotRetriableError("never"), False),
            (KeyboardInterrupt(), False),
        ],
    )
    def test_by_default_every_exception_is_retriable_unless_it_says_not(
        self, error: BaseException, expected: bool
    ) -> None:
        assert is_retriable(error) is expected
        assert settings().is_retriable(error) is expected

    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (OSError(), True),
            (ConnectionError(), True),
            (TimeoutError(), False),
            (KeyError(), False),
            (RetriableError("later"), True),
            (RetriableError(TimeoutError()), True),
            (NotRetriableError("never"), False),
        ],
    )
    def test_never_retry_on_wins_over_retry_on_and_the_error_itself_over_both(
        self, error: BaseException, expected: bool
    ) -> None:
        read = settings(retry_on=OSError, never_retry_on=TimeoutError)
        assert read.is_retriable(error) is expected

    def test_where_nothing_is_retried_an_error_may_still_ask_for_it(self) -> None:
        read = settings(retry_on=())
        assert not read.is_retriable(ValueError())
        assert read.is_retriable(RetriableError("later"))


class Outer:
    class InnerError(Exception):
        pass
