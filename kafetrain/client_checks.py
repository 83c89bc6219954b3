"""Checks of settings that go to the Kafka client: how to log in, and the client's options by its own names."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import timedelta
from importlib.util import find_spec
from typing import Any

from kafetrain.client.connection import MAX_POLL_INTERVAL_MS, OPTION_NAMES, SESSION_TIMEOUT_MS, TRANSACTION_TIMEOUT_MS
from kafetrain.settings_checks import nearest

__all__ = ["check_client", "check_client_options", "check_delivery", "check_security"]

_ABORTED_WITHIN = timedelta(seconds=10)  # how often brokers look for transactions that have timed out
_NEEDS_LOGIN = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


def check_client(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A client that is not installed, or that cannot what the settings want of it."""
    if values.get("client") != "confluent":
        return
    if find_spec("confluent_kafka") is None:
        yield "client", "confluent-kafka is not installed: pip install 'kafetrain[confluent]'"
    if values.get("sasl_mechanism") == "AWS_MSK_IAM":
        yield "sasl_mechanism", "confluent-kafka does not know AWS_MSK_IAM; kafka-python does"


def check_delivery(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What transactions need of other settings."""
    if values.get("delivery") != "transactional":
        return
    name = "transaction.timeout.ms" if values.get("client") == "confluent" else "transaction_timeout_ms"
    timeout_ms = (values.get("client_options") or {}).get(name, TRANSACTION_TIMEOUT_MS)
    if isinstance(timeout_ms, bool) or not isinstance(timeout_ms, int) or timeout_ms < 1000:
        yield "client_options", f"{name} must be a whole number of milliseconds, at least 1000"
        return
    least, restore = timedelta(milliseconds=timeout_ms) + _ABORTED_WITHIN, values.get("state_restore_timeout")
    if restore is not None and restore < least:
        yield (
            "state_restore_timeout",
            (
                f'it must be at least {least.total_seconds():g}s with delivery="transactional": for so long an open '
                f"transaction of an instance that died may hold up its successor"
            ),
        )


def check_security(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A login or certificate that the protocol would leave unused, or a login that it lacks."""
    options: Mapping[str, Any] = values.get("client_options") or {}
    names = OPTION_NAMES[values.get("client") or "kafka-python"]

    def given(setting: str) -> Any:
        typed = values.get(setting)
        return options.get(names[setting]) if typed is None else typed

    for setting, option in names.items():
        if option in options and values.get(setting) is not None:
            yield setting, f"it is in client_options too, as {option}; set it in one place"
    protocol, mechanism = given("security_protocol") or "PLAINTEXT", given("sasl_mechanism")
    encrypted, login = f"{protocol}".upper().endswith("SSL"), f"{protocol}".upper().startswith("SASL_")
    if login and mechanism is None:
        yield "sasl_mechanism", f"it is missing, and security_protocol {protocol} needs it"
    if not login and (mechanism or given("sasl_username") or given("sasl_password")):
        yield "security_protocol", f"{protocol} does not log in, but SASL settings are given; SASL_SSL does"
    if login and mechanism in _NEEDS_LOGIN:
        for setting in ("sasl_username", "sasl_password"):
            if not given(setting):
                yield setting, f"it is missing, and sasl_mechanism {mechanism} needs it"
    if not encrypted and (given("ssl_cafile") or given("ssl_certfile") or given("ssl_keyfile")):
        yield "security_protocol", f"{protocol} does not encrypt, but certificates are given; SSL and SASL_SSL do"
    if given("ssl_keyfile") and not given("ssl_certfile"):
        yield "ssl_certfile", "it is missing, and ssl_keyfile is of no use without it"


def check_client_options(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names that the client does not know, names that are not the user's to set, and deadlines that would break a
    promise."""
    options: Mapping[str, Any] = values.get("client_options") or {}
    if not options:
        return
    if values.get("client") != "confluent":
        yield from _of_kafka_python(options)
        yield from _check_deadlines(options, "_")
    elif find_spec("confluent_kafka") is not None:
        yield from _of_confluent(options)
        yield from _check_deadlines(options, ".")
        session = options.get("session.timeout.ms", SESSION_TIMEOUT_MS)
        if isinstance(session, int) and options.get("max.poll.interval.ms", session) < session:
            yield "client_options", f"max.poll.interval.ms must be at least session.timeout.ms ({session})"


# The client libraries are slow to import, and rarely needed here.


def _of_kafka_python(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    from kafetrain.client import kafka_python, kafka_python_publisher

    if missing := kafka_python_publisher.what_is_missing(f"{options.get('compression_type')}"):
        yield "client_options", f"compression_type {missing}"
    known: frozenset[str] = frozenset().union(*kafka_python.known_options().values())
    for name in ("bootstrap_timeout_ms", "linger_ms", "max_block_ms"):  # that are calculated with
        value = options.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            yield "client_options", f"{name} must be a whole number of milliseconds"
    owned: Collection[str] = kafka_python.OWNED_OPTIONS
    for name in options:
        if name in owned:
            yield "client_options", f"{name} is set by kafetrain itself; leave it away"
        elif name not in known:
            yield "client_options", f"{name} is known to no kafka-python client{nearest(name, known - set(owned))}"


def _of_confluent(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    from kafetrain.client import confluent

    for name in options:
        if name in confluent.OWNED_OPTIONS:
            yield "client_options", f"{name} is set by kafetrain itself; leave it away"
    rest = {name: value for name, value in options.items() if name not in confluent.OWNED_OPTIONS}
    for name, problem in confluent.wrong_options(rest):
        yield "client_options", f"{name} {problem}"


def _check_deadlines(options: Mapping[str, Any], separator: str) -> Iterator[tuple[str, str]]:
    delivery_name, session_name, max_poll_name, request_name = (
        name.replace("_", separator)
        for name in ("delivery_timeout_ms", "session_timeout_ms", "max_poll_interval_ms", "request_timeout_ms")
    )
    wrong = False
    for name in (delivery_name, session_name, max_poll_name, request_name):
        value = options.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            wrong = True
            yield "client_options", f"{name} must be a whole number of milliseconds, at least 1"
    if wrong:
        return
    session = options.get(session_name, SESSION_TIMEOUT_MS)
    delivery = options.get(delivery_name, session * 8 // 10)  # as the client derives it
    limits = {session_name: session, max_poll_name: options.get(max_poll_name, MAX_POLL_INTERVAL_MS)}
    for name, limit in limits.items():
        if delivery >= limit:
            yield (
                "client_options",
                (
                    f"{delivery_name} ({delivery}) must be below {name} ({limit}), or a late lock lands after the "
                    f"next owner of the partition has restored its locks"
                ),
            )
