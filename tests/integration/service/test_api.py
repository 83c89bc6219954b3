"""The API: what is accepted, what is refused and how that is said."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.integration.service.conftest import StartService, StartWebhook
from tests.integration.service.harness import Service, Webhook, http_task
from tests.redis_server import RedisServer
from tests.waiting import wait_for

LATER = {"base_delay": 3600}


def test_a_task_is_created_once(service: Service, webhook: Webhook) -> None:
    task = http_task("once", webhook.url(), **LATER)
    answer = service.create(task)
    assert answer.status_code == 201
    assert answer.json() == {"message": "Task once scheduled successfully", "task_id": "once"}
    again = service.create(task)
    assert (again.status_code, again.json()["task_id"]) == (200, "once")
    other = service.create({**task, "max_retries": 1})
    assert (other.status_code, other.json()) == (409, {"error": "another task with the id once exists"})


def test_what_is_stored_is_what_was_given(service: Service, webhook: Webhook) -> None:
    data = json.dumps({"text": "ünï 🎉 \x00 \\u0000"})
    given = http_task("as given", webhook.url(), message_data=data, backoff={"type": "linear", "jitter": 0.5}, **LATER)
    assert service.create(given).status_code == 201
    task = service.task("as given")
    assert {name: task[name] for name in given} == {**given, "backoff": task["backoff"]}
    assert task["backoff"] == {"type": "linear", "max_delay": None, "jitter": 0.5}
    assert (task["state"], task["attempt"], task["attempts"]) == ("scheduled", 0, [])


@pytest.mark.parametrize("body", [b"", b"  \n"])
def test_an_empty_body_is_said_so(service: Service, body: bytes) -> None:
    answer = service.http.post("/tasks", content=body)
    assert (answer.status_code, answer.json()) == (400, {"error": "payload is required"})


def changed(**changes: Any) -> dict[str, Any]:
    return http_task("wrong", "http://127.0.0.1:1/hook") | changes


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"id": "x"}, "source is required; destination is required; dead_destination is required; max_retries"),
        (changed(max_retries=-1), "max_retries should be greater than or equal to 0"),
        (changed(max_retries="5"), "max_retries should be a valid integer"),
        (changed(max_retries=True), "max_retries should be a valid integer"),
        (changed(base_delay=-0.1), "base_delay should be greater than or equal to 0"),
        (changed(base_delay="1"), "base_delay should be a valid number"),
        (changed(is_priority="yes"), "is_priority should be a valid boolean"),
        (changed(message_data={"a": 1}), "message_data should be a valid string"),
        (changed(message_data="no json"), "message_data must be JSON for an http destination"),
        (changed(destination_type="ftp"), "destination_type 'ftp' is none of http, kafka"),
        (changed(destination={}), "destination should"),
        (changed(destination={"host": "h"}), "destination.url is required"),
        (changed(destination={"url": "ftp://a"}), "destination.url must be http"),
        (changed(destination={"url": "http://u:p@a/"}), "destination.url must not have a user"),
        (changed(dead_destination={"url": "nonsense"}), "dead_destination.url must be http"),
        (changed(destination={"url": "http://a:99999/"}), "destination.url is not a URL"),
        (changed(id="a/b"), "id must not have control characters, and an id no slash"),
        (changed(id=".."), "id must not have"),
        (changed(id=""), "id should have at least 1 character"),
        (changed(id="x" * 201), "id should have at most 200 characters"),
        (changed(source="a\nb"), "source must not have control characters"),
        (changed(typo=1), "typo is no field of a task"),
        (changed(backoff="slow"), "backoff"),
        (changed(backoff={"type": "linear", "jitter": 2}), "backoff.jitter should be less than or equal to 1"),
        (
            changed(destination_type="kafka", destination={"host": "localhost", "port": "x", "topic": "t"}),
            "destination.port must be a number from 1 to 65535",
        ),
        (
            changed(destination_type="kafka", destination={"host": "localhost", "port": 9092, "topic": "a b"}),
            "destination.topic must be 1 to 249",
        ),
        (
            changed(destination_type="kafka", destination={"host": "evil", "port": 9092, "topic": "t"}),
            "destination: evil:9092 is neither in KAFKA_BROKERS nor in ALLOWED_BROKERS",
        ),
        (changed(destination={"url": "http://169.254.169.254/latest"}), "name its host in ALLOWED_HTTP_HOSTS"),
        ([1], "payload"),
        (None, "payload"),
    ],
)
def test_what_is_missing_or_wrong_is_named(service: Service, task: Any, said: str) -> None:
    answer = service.create(task)
    assert answer.status_code == 400, answer.text
    assert list(answer.json()) == ["error"]
    assert said in answer.json()["error"]
    assert service.http.get("/tasks/wrong").status_code == 404


@pytest.mark.parametrize("body", [b"{", b"\xff", b'{"id": "\\ud800"}', b"[" * 100_000])
def test_what_is_no_json_is_said_so(service: Service, body: bytes) -> None:
    answer = service.http.post("/tasks", content=body)
    assert (answer.status_code, answer.json()) == (400, {"error": "payload is not valid JSON"})


def test_a_port_may_be_text(service: Service) -> None:
    places = [{"host": "localhost", "port": port, "topic": "t"} for port in ("9092", 9092)]
    task = changed(id="port", destination_type="kafka", destination=places[0], dead_destination=places[1], **LATER)
    assert service.create(task).status_code == 201
    assert service.task("port")["destination"] == service.task("port")["dead_destination"] == places[1]


def test_a_batch_has_a_status_for_each(service: Service, webhook: Webhook) -> None:
    good = http_task("batch 1", webhook.url(), **LATER)
    tasks = [good, {**good, "id": "batch 2"}, good, {**good, "max_retries": 9}, {"id": "batch 3"}, 17]
    answer = service.http.post("/tasks/batch", json={"tasks": tasks})
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [one["status"] for one in results] == [201, 201, 200, 409, 400, 400]
    assert [one["task_id"] for one in results] == ["batch 1", "batch 2", "batch 1", "batch 1", "batch 3", None]
    assert "source is required" in results[4]["error"]


def test_one_of_a_batch_is_no_larger_than_it_may_be_alone(service: Service, webhook: Webhook) -> None:
    large = http_task("large", webhook.url(), message_data=json.dumps("x" * 1024 * 1024), **LATER)
    fine = http_task("not large", webhook.url(), **LATER)
    results = service.http.post("/tasks/batch", json={"tasks": [large, fine]}).json()["results"]
    assert [one["status"] for one in results] == [413, 201]
    assert results[0]["error"] == "message_data is larger than 1048576 bytes"


@pytest.mark.parametrize(
    ("body", "said"),
    [({}, "tasks is required"), ({"tasks": []}, "at least 1"), ({"tasks": [1] * 1001}, "at most 1000")],
)
def test_a_batch_of_the_wrong_size_is_refused(service: Service, body: object, said: str) -> None:
    answer = service.http.post("/tasks/batch", json=body)
    assert answer.status_code == 400
    assert said in answer.json()["error"]


def test_tasks_are_listed_by_filter_page_by_page(service: Service, webhook: Webhook) -> None:
    service.create_all([http_task(f"list {i:02}", webhook.url(), client_id=f"l{i % 2}", **LATER) for i in range(20)])
    ids, cursor = [], None
    while True:
        query = {"client_id": "l1", "state": "scheduled", "limit": "3", **({"cursor": cursor} if cursor else {})}
        page = service.http.get("/tasks", params=query).json()
        ids += [task["id"] for task in page["tasks"]]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert sorted(ids) == [f"list {i:02}" for i in range(1, 20, 2)]
    assert "message_data" not in page
    found = service.http.get("/tasks", params={"search": "list 07"}).json()["tasks"]
    assert [task["id"] for task in found] == ["list 07"]


@pytest.mark.parametrize(
    "query", [{"state": "nonsense"}, {"limit": "0"}, {"limit": "x"}, {"limit": "501"}, {"cursor": "mine"}]
)
def test_a_wrong_query_is_refused(service: Service, query: dict[str, str]) -> None:
    answer = service.http.get("/tasks", params=query)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])


def test_what_is_not_there_is_404(service: Service) -> None:
    for method, path in (
        ("GET", "/tasks/none"),
        ("DELETE", "/tasks/none"),
        ("POST", "/tasks/none/retry-now"),
        ("POST", "/tasks/none/replay"),
        ("GET", "/nothing"),
    ):
        answer = service.http.request(method, path)
        assert (answer.status_code, list(answer.json())) == (404, ["error"])
    assert service.http.put("/tasks").status_code == 405


def test_retry_now_delivers_at_once_and_replay_is_for_the_dead(service: Service, webhook: Webhook) -> None:
    service.create(http_task("hurry", webhook.url(), **LATER))
    assert service.http.post("/tasks/hurry/replay").status_code == 409
    assert service.http.post("/tasks/hurry/retry-now").status_code == 200
    done = service.wait_for_state("hurry", "delivered")
    assert [(one["number"], one["status"], one["error"]) for one in done["attempts"]] == [(1, 200, None)]
    assert service.http.post("/tasks/hurry/retry-now").status_code == 409


def test_a_replay_that_is_said_to_be_made_is_made_once(service: Service, start_webhook: StartWebhook) -> None:
    webhook = start_webhook()
    refusing = http_task("replayed", webhook.url(), max_retries=0, base_delay=0)
    service.create(refusing)
    service.wait_for_state("replayed", "dead_lettered")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: service.http.post("/tasks/replayed/replay").status_code, range(8)))
    assert set(answers) <= {200, 409}
    wait_for("it has gone to the dead destination again", lambda: len(webhook.hits) > answers.count(200))
    service.wait_for_state("replayed", "dead_lettered")
    assert len(webhook.hits) == 1 + answers.count(200)


def test_a_deleted_task_is_not_delivered(service: Service, webhook: Webhook) -> None:
    service.create(http_task("gone", webhook.url(), **LATER))
    assert service.http.delete("/tasks/gone").status_code == 204
    assert service.http.get("/tasks/gone").status_code == 404


def test_health_and_metrics(service: Service, webhook: Webhook) -> None:
    assert service.http.get("/health").json() == {"status": "healthy"}
    assert service.http.get("/ready").status_code == 200
    service.create(http_task("measured", webhook.url()))
    service.wait_for_state("measured", "delivered")
    text = service.http.get("/metrics").text
    for name in (
        "kafka_retry_tasks_created_total ",
        'kafka_retry_tasks_processed_total{destination_type="http"} ',
        "kafka_retry_tasks_failed_total",
        "kafka_retry_tasks_dead_lettered_total ",
        "kafka_retry_processing_duration_seconds_bucket",
        'kafka_retry_queue_depth{state="scheduled"} ',
        "kafka_retry_lateness_seconds_bucket",
    ):
        assert f"\n{name}" in text, name


def test_limits_of_body_url_and_headers(service: Service) -> None:
    assert service.http.post("/tasks", content=b"x" * (1024 * 1024 + 1)).status_code == 413

    def chunks() -> Any:
        for _ in range(40):
            yield b"x" * 65536

    assert service.http.post("/tasks", content=chunks()).status_code == 413
    assert service.http.get("/tasks", params={"search": "x" * 9000}).status_code == 414
    assert service.http.get("/health", headers={"x-long": "x" * 33_000}).status_code == 431


def test_a_head_without_an_end_is_cut_off(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=90) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nx-endless: ")
        received = b""
        try:
            for _ in range(1000):
                connection.sendall(b"y" * 4096)
            received = connection.recv(1000)
        except OSError:
            return  # closed while we were sending
        assert received.startswith(b"HTTP/1.1 431") or received == b""


def test_a_caller_that_goes_away_in_the_middle_is_no_failure_of_ours(service: Service) -> None:
    for path in ("/tasks", "/tasks/batch"):
        with socket.create_connection(("127.0.0.1", service.port), timeout=90) as connection:
            connection.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{{".encode())
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1000):
                pass  # until the other end has noticed
    assert "failed" not in service.log_text()


def test_pages_of_other_sites_cannot_act_here(service: Service, webhook: Webhook) -> None:
    task = http_task("csrf", webhook.url(), **LATER)
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = service.http.post("/tasks", json=task, headers=headers)
        assert answer.status_code == 403
    assert service.http.post("/tasks", json=task, headers={"Origin": service.url}).status_code == 201


def test_names_that_lead_here_are_not_served(service: Service) -> None:
    """A page of any site may have its name changed to loopback while it is open."""
    for host in ("evil.example", f"evil.example:{service.port}", "localhost.evil.example", ""):
        for path in ("/tasks", "/"):
            assert service.http.get(path, headers={"Host": host}).status_code == 403, host
    for host in ("localhost", f"localhost:{service.port}", "127.0.0.1", "[::1]:8080"):
        assert service.http.get("/tasks", headers={"Host": host}).status_code == 200, host


def test_keys_have_roles(start_service: StartService, webhook: Webhook) -> None:
    service = start_service(SUBMIT_KEYS="s-key, s2", ADMIN_KEYS="a-key")
    task = http_task("keyed", webhook.url(), **LATER)

    def status(method: str, path: str, key: str | None, **more: Any) -> int:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return service.http.request(method, path, headers=headers, **more).status_code

    assert [status("POST", "/tasks", key, json=task) for key in (None, "no", "s-key", "s2", "a-key")] == [
        401,
        401,
        201,
        200,
        200,
    ]
    for method, path in (("GET", "/tasks"), ("GET", "/tasks/keyed"), ("DELETE", "/tasks/keyed")):
        assert [status(method, path, key) for key in (None, "no", "s-key")] == [401, 401, 403]
    assert service.http.get("/tasks/keyed", headers={"X-API-Key": "a-key"}).status_code == 200
    page = service.http.get("/")
    assert (page.status_code, page.headers["www-authenticate"][:5]) == (401, "Basic")
    assert service.http.get("/", auth=("anyone", "a-key")).status_code == 200
    assert service.http.get("/", auth=("anyone", "s-key")).status_code == 403
    assert [service.http.get(path).status_code for path in ("/health", "/ready", "/metrics")] == [200] * 3
    assert service.http.get("/openapi.json").json()["paths"]["/tasks"]["post"]["security"]


def test_a_store_that_is_away_is_503(start_service: StartService, durable_redis: RedisServer, webhook: Webhook) -> None:
    service = start_service(REDIS_ADDR=durable_redis.address)
    service.create(http_task("before", webhook.url(), **LATER))
    durable_redis.kill()
    answer = service.create(http_task("meanwhile", webhook.url(), **LATER))
    assert (answer.status_code, list(answer.json())) == (503, ["error"])
    health = service.http.get("/health")
    assert health.status_code == 503
    assert health.json()["status"] == "unhealthy"
    assert health.json()["error"].startswith("redis connection failed")
    assert service.http.get("/").status_code == 503
    durable_redis.start()
    wait_for("the service is healthy again", lambda: service.http.get("/health").status_code == 200)
    assert service.create(http_task("meanwhile", webhook.url(), **LATER)).status_code in (200, 201)
    assert service.task("before")["state"] == "scheduled"
