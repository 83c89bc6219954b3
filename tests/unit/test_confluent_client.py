"""The confluent client without a broker: its options are checked, it is chosen by the settings, and nothing leaks."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import pytest

from kafetrain.client.choose import client_for
from kafetrain.client.confluent import OWNED_OPTIONS, ConfluentClient
from kafetrain.client.confluent_consumer import has_member
from kafetrain.client.kafka_python import KafkaPythonClient
from kafetrain.client.ports import ClientError
from kafetrain.errors import ConfigurationError
from kafetrain.settings import Settings

LOGIN = {"sasl_mechanism": "PLAIN", "sasl_username": "me", "sasl_password": "hunter2"}


def settings(**values: Any) -> Settings:
    return Settings(**{"group_id": "billing", "client": "confluent", **values})


def error_of(**values: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        settings(**values)
    return str(caught.value)


def test_the_settings_name_the_client() -> None:
    assert isinstance(client_for(settings()), ConfluentClient)
    assert isinstance(client_for(Settings(group_id="billing")), KafkaPythonClient)


def test_a_library_that_is_not_installed_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    made = settings()
    find_spec = importlib.util.find_spec
    gone = lambda name, *more: None if name == "confluent_kafka" else find_spec(name, *more)  # noqa: E731  # a stand-in
    for module in ("kafetrain.client.choose", "kafetrain.client_checks"):
        monkeypatch.setattr(sys.modules[module], "find_spec", gone)
    expected = r"not installed: pip install 'kafetrain\[confluent\]'"
    with pytest.raises(ConfigurationError, match=expected):
        settings(client_options={"linger.ms": 1})
    with pytest.raises(ConfigurationError, match=expected):
        client_for(made)


def test_options_go_by_the_names_of_librdkafka() -> None:
    read = settings(client_options={"fetch.wait.max.ms": 50, "client.id": "me"})
    assert read.client_options == {"fetch.wait.max.ms": 50, "client.id": "me"}
    text = error_of(client_options={"session_timeout_ms": 6000})
    assert text == (
        "client_options: session_timeout_ms is known to no confluent-kafka client; did you mean session.timeout.ms?"
    )


@pytest.mark.parametrize("name", sorted(OWNED_OPTIONS))
def test_an_option_that_kafetrain_must_set_is_refused(name: str) -> None:
    assert error_of(client_options={name: "x"}) == f"client_options: {name} is set by kafetrain itself; leave it away"


def test_a_value_that_the_library_does_not_take_is_refused_and_not_repeated() -> None:
    text = error_of(client_options={"fetch.wait.max.ms": "hunter2", "compression.type": "hunter2"})
    assert "fetch.wait.max.ms has a value that confluent-kafka does not take" in text
    assert "compression.type has a value that confluent-kafka does not take" in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({"delivery.timeout.ms": 45_000}, "session.timeout.ms (45000)"),
        ({"delivery.timeout.ms": 20_000, "max.poll.interval.ms": 15_000}, "max.poll.interval.ms (15000)"),
    ],
)
def test_a_write_must_end_before_somebody_else_owns_its_partition(options: dict[str, int], limit: str) -> None:
    assert f"must be below {limit}, or a late lock lands after the next owner" in error_of(client_options=options)


def test_the_poll_interval_cannot_be_below_the_session() -> None:
    text = error_of(client_options={"session.timeout.ms": 6_000, "max.poll.interval.ms": 5_500})
    assert "max.poll.interval.ms must be at least session.timeout.ms (6000)" in text


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"client_options": {"sasl.username": "me"}}, "security_protocol: PLAINTEXT does not log in"),
        (
            {"security_protocol": "SASL_SSL", **LOGIN, "client_options": {"sasl.password": "hunter2"}},
            "sasl_password: it is in client_options too, as sasl.password",
        ),
        (
            {"security_protocol": "SASL_SSL", "sasl_mechanism": "AWS_MSK_IAM"},
            "sasl_mechanism: confluent-kafka does not know AWS_MSK_IAM; kafka-python does",
        ),
    ],
)
def test_logins_that_cannot_be_are_refused(values: dict[str, Any], expected: str) -> None:
    text = error_of(**values)
    assert expected in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("generation", "member", "expected"),
    [(0, b"me-1", True), (7, b"me-1", True), (-1, b"me-1", False), (7, b"", False)],
)
def test_a_membership_has_a_generation_and_a_member(generation: int, member: bytes, expected: bool) -> None:
    metadata = b"CGMDv2:" + generation.to_bytes(4, sys.byteorder, signed=True) + b"billing\0" + member + b"\0\1"
    assert has_member(metadata) is expected


def test_a_membership_in_another_form_is_an_error_and_not_taken_for_one() -> None:
    with pytest.raises(ClientError, match="in a form that is not known here"):
        has_member(b"CGMDv3:1:billing:me-1")
