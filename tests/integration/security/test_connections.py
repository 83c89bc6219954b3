"""Logins and certificates: what fits works, what does not is one clear error, soon, and without the secret."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from loguru import logger

from kafetrain import ErrorTracker, KafkaConsumer, Record, RetriableError, Settings, get_retry_attempt
from kafetrain.client.ports import ClientError
from tests.integration.cluster import Cluster
from tests.integration.journal import Journal
from tests.integration.security.secured import Right, SecuredBroker
from tests.waiting import wait_for

pytestmark = pytest.mark.kafka

USER, PASSWORD, WRONG = "billing", "correct-horse", "battery-staple"
"""The user is also who shows the client's certificate."""

REFUSED = r"was refused .* check the sasl_ settings"
EVERYTHING = [
    *(Right("topic", "*", name) for name in "Read Write Create Delete Alter Describe DescribeConfigs".split()),
    *(Right("group", "*", name) for name in ("Read", "Describe")),
]


@pytest.fixture(scope="module", autouse=True)
def _users(secured: SecuredBroker) -> None:
    secured.add_user(USER, PASSWORD)
    secured.allow(USER, EVERYTHING)


def tls_login(secured: SecuredBroker, **changes: Any) -> dict[str, Any]:
    return {
        **secured.as_user(USER, PASSWORD),
        "bootstrap_servers": secured.broker.addresses["SCRAM_TLS"],
        "security_protocol": "SASL_SSL",
        "ssl_cafile": secured.certificates.authority,
        **changes,
    }


def certificate(secured: SecuredBroker, **changes: Any) -> dict[str, Any]:
    return {
        "bootstrap_servers": secured.broker.addresses["TLS"],
        "security_protocol": "SSL",
        "ssl_cafile": secured.certificates.authority,
        "ssl_certfile": secured.certificates.client,
        **changes,
    }


def settings_with(values: Mapping[str, Any]) -> Settings:
    return Settings(group_id="billing", _env_file=None, **values)


@pytest.mark.parametrize("way", ["login", "login over TLS", "certificate"])
def test_it_works(way: str, secured: SecuredBroker) -> None:
    """All clients get through: the consumers of both sides, the reader, the producer, the admin."""
    topic, journal, cluster = secured.broker.create_unique_topic(prefix="orders"), Journal(), Cluster(secured.broker)
    ways = {
        "login": secured.as_user(USER, PASSWORD),
        "login over TLS": tls_login(secured),
        "certificate": certificate(secured),
    }
    settings = settings_with(ways[way])

    def handle(record: Record) -> None:
        if record.value == b"fails" and get_retry_attempt(record) == 0:
            raise RetriableError("not yet")

    written = cluster.write(topic, b"k", b"fails", b"follows")
    with KafkaConsumer.resilient(settings, topic, journal.recording(handle)) as consumer:
        wait_for("both have succeeded", lambda: journal.offsets("ended") == [0, 1], check=consumer.check)
    journal.no_loss(written)
    journal.key_order(written)
    journal.honest_attempts()
    cluster.check_at_rest(settings, topic)
    cluster.close()


Change = Callable[[SecuredBroker], dict[str, Any]]
WRONG_SETTINGS: dict[str, tuple[Change, str]] = {
    "wrong password": (lambda s: s.as_user(USER, WRONG), rf"{REFUSED}.*invalid credentials"),
    "wrong password over TLS": (lambda s: tls_login(s, sasl_password=WRONG), REFUSED),
    "unknown user": (lambda s: s.as_user("stranger", WRONG), REFUSED),
    "another mechanism": (
        lambda s: {**s.as_user(USER, WRONG), "sasl_mechanism": "SCRAM-SHA-256"},
        rf"{REFUSED}.*Mechanism",
    ),
    "another authority": (lambda s: tls_login(s, ssl_cafile=s.certificates.strangers), r"not trusted; check ssl_caf"),
    "no authority": (lambda s: tls_login(s, ssl_cafile=None), r"is not trusted; check ssl_cafile"),
    "a strange certificate": (
        lambda s: certificate(s, ssl_certfile=s.certificates.strange_client),
        r"refused our certificate; check ssl_certfile",
    ),
    "no certificate": (lambda s: certificate(s, ssl_certfile=None), r"refused our certificate; check ssl_certfile"),
    "a file that is not there": (lambda s: tls_login(s, ssl_cafile="/no/file"), r"ssl_cafile: /no/file cannot be read"),
    "a file that is no certificate": (lambda s: tls_login(s, ssl_cafile=__file__), r"ssl_cafile.* cannot be used"),
    "plain text to TLS": (
        lambda s: {"bootstrap_servers": s.broker.addresses["TLS"]},
        r"speaks TLS there, and security_protocol is PLAINTEXT",
    ),
    "TLS to plain text": (
        lambda s: tls_login(s, bootstrap_servers=s.broker.addresses["SCRAM"]),
        r"Does this listener speak SASL_SSL\?",
    ),
    "no login where one is wanted": (
        lambda s: {"bootstrap_servers": s.broker.addresses["SCRAM"]},
        r"Does this listener speak PLAINTEXT\?",
    ),
    "a login where none is wanted": (
        lambda s: {**s.as_user(USER, WRONG), "bootstrap_servers": s.broker.bootstrap_servers},
        REFUSED,
    ),
}  # fmt: skip


@pytest.fixture
def messages() -> Iterator[list[str]]:
    """Everything that kafetrain logs."""
    found: list[str] = []
    logger.enable("kafetrain")
    sink = logger.add(found.append, level="TRACE", format="{message} {extra}\n{exception}")
    yield found
    logger.remove(sink)
    logger.disable("kafetrain")


@pytest.mark.parametrize("case", WRONG_SETTINGS)
def test_what_does_not_fit_is_one_clear_error_soon_and_without_the_secret(
    case: str, secured: SecuredBroker, messages: list[str]
) -> None:
    make, expected = WRONG_SETTINGS[case]
    settings = settings_with({**make(secured), "client_options": {"bootstrap_timeout_ms": 2_000}})
    began = time.monotonic()
    with pytest.raises(ClientError, match=expected) as caught:
        ErrorTracker(settings).start_tracking("orders")
    assert time.monotonic() - began < 6
    assert "\n" not in str(caught.value)
    told = "".join(traceback.format_exception(caught.value)) + "".join(messages)
    assert WRONG not in told
    assert PASSWORD not in told
