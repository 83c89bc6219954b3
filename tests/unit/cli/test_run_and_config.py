"""`kafetrain run` and `kafetrain config`: what a user is told, and with which exit code."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kafetrain import cli
from tests.unit.cli.test_topics import runner

Run = Callable[..., Any]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    for name in list(os.environ):
        if name.upper().startswith(("KAFKA_", "KAFETRAIN_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return lambda *arguments, **env: runner().invoke(cli.app, arguments, env=env)


def refused(result: Any) -> str:
    """The one line of a refusal."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return str(line)


TWICE = """
from kafetrain.managed import Registry
jobs = Registry()
for _ in range(2):
    jobs.consumer(job_name="a", topic="orders", group_id="g")(print)
"""


@pytest.mark.parametrize(
    ("app", "source", "part"),
    [
        ("shop", "", "'shop' names no app: write module:attribute"),
        ("nowhere:app", "", "there is no module nowhere in "),
        ("shop0.py:app", "app = 7", "there is no module shop0.py in "),
        ("shop0.py:app", "app = 7", "; a module is no file: write shop0:app"),
        ("shop1:ap", "app = 7", "shop1 has no ap; did you mean app?"),
        ("shop2:app", "app = 7", "shop2:app is a int, and neither an App nor a Registry"),
        ("shop3:app", "import nothing_of_that_name", "shop3 cannot be imported: it needs nothing_of_that_name"),
        ("shop4:app", "1 / 0", "shop4 cannot be imported: ZeroDivisionError in "),
        ("shop5:app", "app = (", "shop5 cannot be imported: SyntaxError in "),
        ("shop6:app", "from kafetrain import App\napp = App()", "group_id is missing"),
        ("shop7:app", "from kafetrain import App\napp = App(group_id='g')", "the app has no handler"),
        ("shop9:jobs", "from kafetrain.managed import Registry\njobs = Registry()", "no consumer is registered"),
        ("shop10:jobs", TWICE, "job name 'a' is taken"),
        ("shop8:app", "from kafetrain import App\napp = App.from_file()", "kafetrain.yaml does not exist"),
    ],
)
def test_an_app_that_cannot_run_is_said_in_one_line(run: Run, app: str, source: str, part: str) -> None:
    Path(f"{app.partition(':')[0].removesuffix('.py')}.py").write_text(source)
    if app == "nowhere:app":
        Path("nowhere.py").unlink()
    assert part in refused(run("run", app))


def test_options_that_make_no_sense_are_refused(run: Run) -> None:
    assert "--log-level loud may be trace, debug" in refused(run("run", "a:b", "--log-level", "loud"))
    assert "--reload runs one process" in refused(run("run", "a:b", "--reload", "--workers", "2"))
    assert run("run", "a:b", "--workers", "0").exit_code == 2


SECRET = """
[kafka]
group = "billing"
security_protocol = "SASL_SSL"
sasl_mechanism = "PLAIN"
sasl_username = "me"
sasl_password = "hunter2"
client_options = {ssl_password = "hunter2", client_id = "us", group_instance_id = "key"}
"""


def test_config_show_says_each_value_and_where_it_is_from_and_masks_secrets(run: Run) -> None:
    Path("kafetrain.toml").write_text(SECRET)
    shown = run("config", "show", KAFKA_BROKERS="a:1,b:2", KAFETRAIN_MAX_RETRIES="none")
    assert shown.exit_code == 0, shown.stderr
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in shown.stdout.splitlines()}
    assert lines["bootstrap_servers"] == "a:1, b:2 KAFKA_BROKERS"
    assert lines["group_id"] == "billing kafetrain.toml (group)"
    assert lines["max_retries"] == "not set KAFETRAIN_MAX_RETRIES"
    assert lines["sasl_password"] == "******** kafetrain.toml"
    assert lines["shutdown_timeout"] == "10s default"
    assert "hunter2" not in shown.output
    data = json.loads(run("config", "show", "--json").stdout)
    assert data["client_options"] == {
        "value": {"ssl_password": "********", "client_id": "us", "group_instance_id": "key"},
        "from": "kafetrain.toml",
    }
    assert data["topics"] == {"value": [], "from": "default"}


def test_secrets_are_masked_by_the_names_of_either_client(run: Run) -> None:
    pytest.importorskip("confluent_kafka")
    options = {"ssl.key.password": "hunter2", "ssl.keystore.password": "hunter2", "client.id": "us"}
    shown = run(
        "config",
        "show",
        "--json",
        KAFKA_GROUP="g",
        KAFETRAIN_CLIENT="confluent",
        KAFETRAIN_CLIENT_OPTIONS=json.dumps(options),
    )
    assert shown.exit_code == 0, shown.stderr
    assert "hunter2" not in shown.output
    assert json.loads(shown.stdout)["client_options"]["value"]["client.id"] == "us"


def test_config_check_connects_to_nothing_and_says_what_is_wrong(run: Run) -> None:
    Path("good.yaml").write_text("kafka: {brokers: 'a:1', group: g}")
    Path("bad.yaml").write_text("kafka: {borkers: 'a:1', group: g}")
    good = run("config", "check", "--file", "good.yaml")
    assert (good.exit_code, good.stdout.startswith("fine: 2 values set")) == (0, True)
    assert "bad.yaml: kafka.borkers is unknown; did you mean brokers?" in refused(
        run("config", "check", "--file", "bad.yaml")
    )
    assert "group_id is missing" in refused(run("config", "check"))
