"""Settings: the form of topic names, and one error for everything that is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from kafetrain.errors import ConfigurationError
from kafetrain.settings import Settings
from tests.unit.settings.made import error_of, settings


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
