"""Where a value comes from, which place wins, and what is said of a value that cannot be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from kafetrain import App, ConfigurationError
from kafetrain.app import Configuration
from kafetrain.backoff_policy import ConstantBackoff


@pytest.fixture(autouse=True)
def _nothing_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.upper().startswith(("KAFKA_", "KAFETRAIN_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def write(text: str, name: str = "kafetrain.yaml") -> str:
    Path(name).write_text(text)
    return name


FULL = """
kafka:
  brokers: [one:1, two:2]
  group: billing
  topics: [orders, refunds]
  auto_commit: true
  start_from_beginning: false
  session_timeout_ms: 8000
  heartbeat_interval_ms: 2000
  max_retries: 3
  backoff: {policy: constant, initial: 2s}
  retry_on: ConnectionError
"""

FULL_TOML = """
[kafka]
brokers = "one:1,two:2"
group = "billing"
topics = "orders, refunds"
auto_commit = true
start_from_beginning = false
session_timeout_ms = 8000
heartbeat_interval_ms = 2000
max_retries = 3
backoff = {policy = "constant", initial = "2s"}
retry_on = ["ConnectionError"]
"""


@pytest.mark.parametrize(("name", "text"), [("k.yaml", FULL), ("k.yml", FULL), ("k.toml", FULL_TOML)])
def test_a_file_may_say_it_all(name: str, text: str) -> None:
    loaded = Configuration.load(file=write(text, name))
    settings = loaded.settings
    assert settings.bootstrap_servers == ["one:1", "two:2"]
    assert (settings.group_id, settings.auto_offset_reset, settings.max_retries) == ("billing", "latest", 3)
    assert settings.client_options == {"session_timeout_ms": 8000, "heartbeat_interval_ms": 2000}
    assert settings.backoff(1).total_seconds() == 2
    assert isinstance(settings.backoff, ConstantBackoff)
    assert settings.retry_on == (ConnectionError,)
    assert (loaded.topics, loaded.auto_commit) == (["orders", "refunds"], True)
    assert loaded.origins["group_id"] == f"{name} (group)"
    assert loaded.origins["max_retries"] == name
    assert loaded.origins["concurrency"] == "default"


def test_code_beats_kafetrain_beats_kafka_beats_the_file_beats_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    file = write("kafka: {brokers: file:1, group: file, concurrency: 2, max_retries: 2, free_on_dlq: true}")
    for name, text in {
        "KAFKA_BROKERS": "kafka:1",
        "KAFKA_GROUP": "kafka",
        "KAFKA_TOPICS": "a,b",
        "KAFKA_AUTO_COMMIT": "yes",
        "KAFKA_START_FROM_BEGINNING": "1",
        "KAFETRAIN_GROUP_ID": "kafetrain",
        "KAFETRAIN_CONCURRENCY": "3",
        "KAFETRAIN_MAX_RETRIES": "3",
    }.items():
        monkeypatch.setenv(name, text)
    loaded = Configuration.load({"max_retries": 4}, file)
    settings = loaded.settings
    assert settings.bootstrap_servers == ["kafka:1"]
    assert (settings.group_id, settings.concurrency, settings.max_retries) == ("kafetrain", 3, 4)
    assert (settings.free_on_dlq, settings.auto_offset_reset) == (True, "earliest")
    assert (loaded.topics, loaded.auto_commit) == (["a", "b"], True)
    origins = {name: origin for name, origin in loaded.origins.items() if origin != "default"}
    assert origins == {
        "bootstrap_servers": "KAFKA_BROKERS",
        "group_id": "KAFETRAIN_GROUP_ID",
        "topics": "KAFKA_TOPICS",
        "auto_commit": "KAFKA_AUTO_COMMIT",
        "auto_offset_reset": "KAFKA_START_FROM_BEGINNING",
        "concurrency": "KAFETRAIN_CONCURRENCY",
        "max_retries": "code",
        "free_on_dlq": "kafetrain.yaml",
    }


def test_what_only_apps_have_may_have_either_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    file = write("kafka: {group: g, topics: file, auto_commit: true}")
    for name, text in {
        "KAFKA_TOPICS": "kafka",
        "KAFETRAIN_TOPICS": "kafetrain, more",
        "KAFKA_AUTO_COMMIT": "true",
        "KAFETRAIN_AUTO_COMMIT": "off",
    }.items():
        monkeypatch.setenv(name, text)
    loaded = Configuration.load(file=file)
    assert (loaded.topics, loaded.auto_commit) == (["kafetrain", "more"], False)
    assert (loaded.origins["topics"], loaded.origins["auto_commit"]) == ("KAFETRAIN_TOPICS", "KAFETRAIN_AUTO_COMMIT")


def test_timeouts_have_one_name_whichever_client_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("confluent_kafka")
    file = write(
        "kafka: {group: g, session_timeout_ms: 8000, heartbeat_interval_ms: 2000, client_options: {client.id: us}}"
    )
    monkeypatch.setenv("KAFETRAIN_CLIENT", "confluent")
    monkeypatch.setenv("KAFETRAIN_CLIENT_OPTIONS", '{"session.timeout.ms": 9000}')
    loaded = Configuration.load(file=file)
    assert loaded.settings.client_options == {
        "session.timeout.ms": 9000,
        "heartbeat.interval.ms": 2000,
        "client.id": "us",
    }
    assert loaded.origins["client_options"].endswith("KAFETRAIN_CLIENT_OPTIONS")


def test_a_dotenv_file_counts_as_environment_and_the_real_one_beats_it(monkeypatch: pytest.MonkeyPatch) -> None:
    write("KAFKA_GROUP=dotenv\nKAFKA_BROKERS=dotenv:1\nKAFETRAIN_CONCURRENCY=2\nOTHER=1\n", ".env")
    monkeypatch.setenv("KAFKA_BROKERS", "real:1")
    monkeypatch.setenv("KAFKA_GROUP", "")
    loaded = Configuration.load()
    assert (loaded.settings.group_id, loaded.settings.bootstrap_servers) == ("dotenv", ["real:1"])
    assert loaded.settings.concurrency == 2
    assert loaded.origins["concurrency"] == "KAFETRAIN_CONCURRENCY in .env"


@pytest.mark.parametrize(
    ("said", "begins"),
    [(None, "earliest"), ("true", "earliest"), ("false", "latest"), ("off", "latest"), ("1", "earliest")],
)
def test_start_from_beginning_unset_is_earliest(said: str | None, begins: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if said is not None:
        monkeypatch.setenv("KAFKA_START_FROM_BEGINNING", said)
    assert Configuration.load({"group": "g"}).settings.auto_offset_reset == begins


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("- kafka", "must be a mapping of names to values, not list"),
        ("kafka: 7", "kafka must be a mapping of names to values, not int"),
        ("kafka: {borkers: 'a:1', group: g}", "kafka.borkers is unknown; did you mean brokers"),
        ("kafak: {}", "kafak is unknown; did you mean kafka"),
        ("brokers: 'a:1'", "brokers is unknown; it belongs under kafka:"),
        ("kafka: {group: g, brokers: here}", "'here' has no port"),
        ("kafka: {group: g, group_id: h}", "group and group_id are the same"),
        ("kafka: {group: g, auto_commit: perhaps}", "auto_commit = 'perhaps' .* may be true or false"),
        ("kafka: {group: g, session_timeout_ms: soon}", "must be a whole number of milliseconds"),
        ("kafka: {group: g, session_timeout_ms: true}", "must be a whole number of milliseconds"),
        ("kafka: {group: g, topics: 5}", "topics .* must be names"),
        ("kafka: {group: g, max_retries: many}", "max_retries .*may be a whole number"),
        ("kafka: {group: 5}", "group_id"),
        ("kafka: {}", "group_id is missing"),
        ("kafka: [", "is no YAML: something is wrong in line 1"),
        ("kafka: {group: g, sasl_password: [hunter2]}", "sasl_password"),
        ("kafka: {group: g, client_options: hunter2}", "client_options .*the text is not JSON"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence_that_names_the_file(text: str, part: str) -> None:
    with pytest.raises(ConfigurationError, match=part) as caught:
        Configuration.load(file=write(text))
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)
    if "missing" not in part:
        assert "kafetrain.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "part"),
    [("kafetrain.json", "neither .yaml nor"), ("none.yaml", "does not exist"), ("folder.toml", "cannot be read")],
)
def test_a_file_that_cannot_be_read(name: str, part: str) -> None:
    Path("folder.toml").mkdir()
    with pytest.raises(ConfigurationError, match=part):
        App.from_file(name)


def test_toml_that_is_none_is_not_quoted() -> None:
    with pytest.raises(ConfigurationError, match=r"k.toml is no TOML$"):
        Configuration.load(file=write("kafka = hunter2 =", "k.toml"))


def test_an_app_takes_the_same_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_GROUP", "environment")
    app = App(brokers="a:1", topics="orders", start_from_beginning=False, sasl_password="x", **SASL)
    assert app.settings.group_id == "environment"
    assert (app.settings.bootstrap_servers, app.configuration.topics) == (["a:1"], ["orders"])
    assert app.settings.sasl_password == SecretStr("x")
    with pytest.raises(ConfigurationError, match="max_retry is unknown; did you mean max_retries"):
        App(group="g", max_retry=1)


SASL: dict[str, Any] = {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_username": "me"}
