"""What people use: the documentation's commands, the examples, the client, the command line, the container's check."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kafetrain.service import Client, ServiceError
from tests.integration.service.conftest import StartService, StartWebhook
from tests.integration.service.harness import ROOT, Answer, Service, Webhook, http_task
from tests.redis_server import free_port
from tests.waiting import wait_for

PAGES = ROOT / "docs" / "pages"
CURL = re.compile(r"<!-- curl -->\n```sh\n(.*?)```\n(?:\n```json\n(.*?)```)?", re.DOTALL)


def test_the_commands_of_the_documentation(service: Service, webhook: Webhook) -> None:
    found = CURL.findall((PAGES / "service.md").read_text())
    assert len(found) >= 8
    for command, expected in found:
        command = command.replace("http://localhost:8080", service.url)
        command = command.replace("http://localhost:9000", f"http://127.0.0.1:{webhook.port}")
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, timeout=120)
        pattern = ".*".join(re.escape(piece) for piece in expected.strip().split("…"))
        assert re.fullmatch(pattern, done.stdout.strip(), re.DOTALL), f"{command}\nanswered {done.stdout}"


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def test_the_examples(start_service: StartService) -> None:
    port = free_port()
    service = start_service(SIGNING_SECRETS="shop-1=geheim")
    command = [sys.executable, str(ROOT / "examples/service/webhook_receiver.py"), "--port", str(port)]
    receiver = subprocess.Popen([*command, "--secret", "geheim"], stdout=subprocess.PIPE, text=True, env=environment())
    try:
        assert receiver.stdout is not None
        assert "listens" in receiver.stdout.readline()
        create = [sys.executable, str(ROOT / "examples/service/create_tasks.py"), "--url", service.url]
        create += ["--webhook", f"http://127.0.0.1:{port}", "--delay", "0.1"]
        first = subprocess.check_output(create, text=True, timeout=90, env=environment())
        assert first.splitlines() == ["reminder-1: scheduled", "10 of 10 invoices scheduled"]
        again = subprocess.check_output(create, text=True, timeout=90, env=environment())
        assert again.startswith("reminder-1: was there already")
        wait_for("all are delivered", lambda: len(service.http.get("/tasks?state=delivered").json()["tasks"]) == 11)
    finally:
        receiver.terminate()
        said = receiver.communicate(timeout=90)[0].splitlines()
    assert sum(line.endswith("refused") for line in said) >= 2
    messages = [line.partition(": ")[0] for line in said if not line.endswith("refused")]
    assert sorted(messages) == sorted(["reminder-1", *(f"invoice-{i}" for i in range(1, 11))])


def test_the_client(service: Service, start_webhook: StartWebhook) -> None:
    hook = start_webhook(lambda hit: Answer(200 if hit.path == "/dead" else 500))
    with Client(service.url) as client:
        client.check_health()
        task = http_task("by client ü", hook.url(), max_retries=1, client_id="pythonic")
        assert (client.submit(task).status, client.submit(task).status) == (201, 200)
        with pytest.raises(ServiceError, match="another task") as caught:
            client.submit({**task, "max_retries": 2})
        assert caught.value.status == 409
        many = [{**task, "id": f"many {i}", "base_delay": 3600} for i in range(450)]
        results = client.submit_many([*many, {"id": "bad"}])
        assert [one.is_stored for one in results] == [True] * 450 + [False]
        service.wait_for_state("by client ü", "dead_lettered")
        hook.answer = lambda hit: Answer()
        assert client.replay("by client ü")["state"] == "scheduled"
        assert client.get(service.wait_for_state("by client ü", "delivered")["id"])["attempt"] == 1
        assert len(list(client.tasks(client_id="pythonic"))) == 451
        client.retry_now("many 3")
        service.wait_for_state("many 3", "delivered")
        client.delete("many 4")
        with pytest.raises(ServiceError) as caught:
            client.get("many 4")
        assert caught.value.status == 404


def test_the_client_says_that_nobody_is_there() -> None:
    with Client("http://127.0.0.1:1", tries=1) as client, pytest.raises(ServiceError, match="Is it running there"):
        client.check_health()


def run(*arguments: str, url: str = "", stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kafetrain", *arguments]
    env = environment(KAFETRAIN_SERVICE_URL=url, **more) if url else environment(**more)
    return subprocess.run(command, input=stdin, capture_output=True, text=True, env=env, timeout=90, check=False)


def test_the_commands(start_service: StartService, start_webhook: StartWebhook, tmp_path: Path) -> None:
    service = start_service(ADMIN_KEYS="geheim")
    hook = start_webhook(lambda hit: Answer(200 if hit.path == "/dead" else 500))
    more = {"url": service.url, "KAFETRAIN_SERVICE_KEY": "geheim"}
    tasks = [http_task("cli 1", hook.url(), max_retries=1), http_task("cli 2", hook.url(), base_delay=3600)]
    file = tmp_path / "tasks.json"
    file.write_text(json.dumps(tasks))
    assert run("tasks", "submit", str(file), **more).stdout == "2 of 2 tasks scheduled\n"
    lines = "\n".join(json.dumps(task) for task in [*tasks, {"id": "cli 3"}])
    partly = run("tasks", "submit", "-", stdin=lines, **more)
    assert (partly.returncode, partly.stdout) == (1, "2 of 3 tasks scheduled\n")
    assert partly.stderr.startswith("cli 3: source is required")
    with Client(service.url, api_key="geheim") as client:
        wait_for("the first is dead-lettered", lambda: client.get("cli 1")["state"] == "dead_lettered")
    assert "cli 2  scheduled  0/5" in run("tasks", "list", "--state", "scheduled", **more).stdout
    assert [task["id"] for task in json.loads(run("tasks", "list", "--search", "1", "--json", **more).stdout)] == [
        "cli 1"
    ]
    shown = run("tasks", "show", "cli 1", **more).stdout
    assert "destination 1: answered 500" in shown
    assert json.loads(run("tasks", "show", "cli 2", "--json", **more).stdout)["message_data"] == '{"id": "cli 2"}'
    place = {"host": "localhost", "port": 9092, "topic": "t"}
    playing = {"destination_type": "kafka", "destination": place, "dead_destination": place, "base_delay": 3600}
    with Client(service.url, api_key="geheim") as client:
        client.submit(http_task("cli 4", "", **playing, message_data="one\n\ttwo \x1b[2J\u202e"))
    assert run("tasks", "show", "cli 4", **more).stdout.endswith("\none\n    two ?[2J?\n")
    assert run("tasks", "replay", "cli 1", **more).stdout == "task cli 1 is scheduled again\n"
    assert run("tasks", "replay", "cli 2", **more).returncode == 1
    assert run("tasks", "retry-now", "cli 2", **more).returncode == 0
    assert run("tasks", "delete", "cli 2", **more).stdout == "task cli 2 is deleted\n"
    missing = run("tasks", "show", "cli 2", **more)
    assert (missing.returncode, missing.stderr) == (1, "error: there is no task 'cli 2'\n")
    refused = run("tasks", "list", url=service.url, KAFETRAIN_SERVICE_KEY="wrong")
    assert (refused.returncode, refused.stderr[:30]) == (1, "error: an API key is required: ")[:1] + (
        "error: an API key is required:"[:30],
    )
    wrong = run("tasks", "submit", str(tmp_path / "none.json"), **more)
    assert (wrong.returncode, "cannot be read" in wrong.stderr) == (2, True)


def test_the_check_of_the_container(start_service: StartService) -> None:
    """The health check of the Dockerfile, run where the service is, and where it is not."""
    text = (ROOT / "Dockerfile").read_text()
    [check] = re.findall(r"HEALTHCHECK .*?CMD (\[.*?\])$", text, re.DOTALL | re.MULTILINE)
    command = [sys.executable, *json.loads(check)[1:]]
    service = start_service()
    assert subprocess.run(command, env=environment(HTTP_PORT=str(service.port)), check=False).returncode == 0
    gone = subprocess.run(command, env=environment(HTTP_PORT="1"), capture_output=True, check=False)
    assert gone.returncode != 0
    assert re.search(r"^USER kafetrain$", text, re.MULTILINE)
    assert "HTTP_HOST=0.0.0.0" in text


def test_the_compose_file_has_the_service() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert services["service"]["depends_on"].keys() == {"kafka", "redis"}
    assert all(services[name]["profiles"] == ["service"] for name in ("service", "redis"))


def test_a_destination_of_somebody_else(start_service: StartService, tmp_path: Path) -> None:
    """Found by its entry point. It is the one that the documentation shows."""
    [shown] = re.findall(
        r"<!-- tests/integration/service/file_destination.py -->\n```python\n(.*?)```",
        (PAGES / "service-extending.md").read_text(),
        re.DOTALL,
    )
    assert shown in (ROOT / "tests/integration/service/file_destination.py").read_text()
    site = tmp_path / "site"
    info = site / "file_destination-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: file-destination\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[kafetrain.service.destinations]\nfile = tests.integration.service.file_destination:FileDestination\n"
    )
    service = start_service(PYTHONPATH=f"{ROOT}{os.pathsep}{site}", FILE_DESTINATION_FOLDER=str(tmp_path / "out"))
    task = http_task("filed", "", destination_type="file", destination={"name": "a"}, dead_destination={"name": "b"})
    assert service.create(task).status_code == 201
    service.wait_for_state("filed", "delivered")
    assert (tmp_path / "out" / "a").read_text() == 'filed|1 {"id": "filed"}\n'
    refused = service.create({**task, "id": "x", "destination": {"name": "../a"}})
    assert refused.json() == {"error": "destination.name must be letters and digits"}
