"""Settings: their defaults, and where values come from."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from kafetrain.backoff_policy import ExponentialBackoff, LinearBackoff
from kafetrain.errors import ConfigurationError
from kafetrain.settings import Settings
from tests.unit.settings.made import settings


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

    def test_an_env_file_that_serves_other_programs_too_is_fine(self, tmp_path: Path, log: list[str]) -> None:
        (tmp_path / ".env").write_text("DATABASE_URL=postgres://x\nGROUP_ID=theirs\nMAX_RETRIES=x\nconcurrency=0\n")
        read = settings()
        assert (read.group_id, read.max_retries, read.concurrency) == ("billing", 5, 1)
        assert log == []

    def test_an_unreadable_env_file_is_a_configuration_error(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_bytes(b"KAFETRAIN_GROUP_ID=\xff\xfe\n")
        with pytest.raises(ConfigurationError, match=r"the \.env file cannot be read"):
            Settings()

    def test_an_empty_variable_is_as_good_as_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KAFETRAIN_CONCURRENCY", "")
        assert settings().concurrency == 1

    @pytest.mark.parametrize("place", ["environment", ".env file"])
    def test_an_unknown_variable_is_warned_about_with_the_nearest_name(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, log: list[str], place: str
    ) -> None:
        if place == "environment":
            monkeypatch.setenv("KAFETRAIN_MAX_RETRYS", "3")
        else:
            (tmp_path / ".env").write_text("KAFETRAIN_MAX_RETRYS=3\n")
        assert settings().max_retries == 5
        assert len(log) == 1
        assert f"KAFETRAIN_MAX_RETRYS in the {place} is no setting" in log[0]
        assert "did you mean KAFETRAIN_MAX_RETRIES?" in log[0]
        assert "3" not in log[0], "what is in a variable may be a secret"

    def test_variables_of_the_test_fixtures_are_no_mistake(
        self, monkeypatch: pytest.MonkeyPatch, log: list[str]
    ) -> None:
        monkeypatch.setenv("KAFETRAIN_TEST_BROKERS", "localhost:9092")
        settings()
        assert log == []
