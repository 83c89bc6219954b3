"""Settings of a connection: security, and options of the client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.settings.made import error_of, settings

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

    @pytest.mark.parametrize("name", ["bootstrap_timeout_ms", "linger_ms", "max_block_ms", "session_timeout_ms"])
    def test_a_time_must_be_a_whole_number(self, name: str) -> None:
        text = error_of(client_options={name: "5"})
        assert text.startswith(f"client_options: {name} must be a whole number of milliseconds")

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
