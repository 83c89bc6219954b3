"""Deliveries to webhooks: when, what, and what follows from the answer."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise

import pytest

from tests.integration.service.conftest import StartService, StartWebhook
from tests.integration.service.harness import Answer, Hit, Service, http_task
from tests.waiting import wait_for


def failing(status: int = 500) -> Callable[[Hit], Answer]:
    return lambda hit: Answer(200 if hit.path == "/dead" else status)


def test_deliveries_double_their_delay_and_the_last_resort_is_the_dead_destination(
    service: Service, start_webhook: StartWebhook
) -> None:
    webhook = start_webhook(failing())
    begun = time.time()
    service.create(http_task("doubling", webhook.url(), base_delay=0.1))
    task = service.wait_for_state("doubling", "dead_lettered")
    assert webhook.delivered() == [*(f"doubling|{attempt}" for attempt in range(1, 6)), "doubling|5"]
    assert [hit.path for hit in webhook.hits] == ["/hook"] * 5 + ["/dead"]
    # 0.1, 0.2, 0.4, 0.8 and 1.6 s after another; the dead destination at once.
    times = [begun, *(hit.at for hit in webhook.hits)]
    waits = [after - before for before, after in pairwise(times)]
    for wait, expected in zip(waits, [0.1, 0.2, 0.4, 0.8, 1.6, 0.0], strict=True):
        assert expected - 0.02 < wait < expected + 0.5, waits
    assert [(one["number"], one["to"], one["status"]) for one in task["attempts"]] == [
        *((number, "destination", 500) for number in range(1, 6)),
        (5, "dead_destination", 200),
    ]
    assert task["attempts"][0]["error"] == "answered 500"


def test_what_a_webhook_is_sent(start_service: StartService, start_webhook: StartWebhook) -> None:
    webhook = start_webhook()
    service = start_service(SIGNING_SECRETS="c1=geheim,c2=other")
    data = '{ "text":"ünï" ,"n": 1.50}'
    service.create(http_task("sent", webhook.url("/a?b=c"), message_data=data))
    service.create(http_task("unsigned ü", webhook.url("/a?b=c"), client_id="c3"))
    service.wait_for_state("unsigned ü", "delivered")
    service.wait_for_state("sent", "delivered")
    hits = {hit.key: hit for hit in webhook.hits}
    sent = hits["sent|1"]
    assert sent.body == data.encode()
    assert (sent.headers["Content-Type"], sent.headers["User-Agent"]) == ("application/json", "kafka-retry-service/1.0")
    at, _, digest = sent.headers["X-Signature"].partition(",v1=")
    expected = hmac.new(b"geheim", f"{at.removeprefix('t=')}.".encode() + sent.body, hashlib.sha256).hexdigest()
    assert digest == expected
    assert abs(int(at.removeprefix("t=")) - time.time()) < 60
    assert "X-Signature" not in hits["unsigned %C3%BC|1"].headers
    assert "geheim" not in service.log_text()


def test_logs_of_production_are_json_and_hold_no_message(
    start_service: StartService, start_webhook: StartWebhook
) -> None:
    webhook = start_webhook(failing())
    service = start_service(
        ENVIRONMENT="prod", ALLOWED_HTTP_HOSTS="127.0.0.1", ADMIN_KEYS="schluessel", LOG_LEVEL="debug"
    )
    service.http.headers["X-API-Key"] = "schluessel"
    service.create(http_task("logged", webhook.url(), max_retries=2, message_data='"geheim"'))
    service.wait_for_state("logged", "dead_lettered")
    service.stop()
    lines = [json.loads(line) for line in service.log_text().splitlines()]
    assert all(line.keys() >= {"level", "ts", "caller", "msg"} for line in lines)
    said = [(line["msg"], line["attempt"], line["max_retries"]) for line in lines if line.get("task_id") == "logged"]
    assert said == [
        ("delivery failed: answered 500", 1, 2),
        ("delivery failed: answered 500", 2, 2),
        ("delivered to the dead destination", 2, 2),
    ]
    assert "geheim" not in service.log_text()
    assert "schluessel" not in service.log_text()


def test_without_retries_it_goes_to_the_dead_destination_at_once(service: Service, start_webhook: StartWebhook) -> None:
    webhook = start_webhook()
    service.create(http_task("none left", webhook.url(), max_retries=0, base_delay=3600))
    service.wait_for_state("none left", "dead_lettered")
    assert [(hit.path, hit.key) for hit in webhook.hits] == [("/dead", "none left|0")]


def test_a_dead_destination_that_fails_gets_it_in_the_end(service: Service, start_webhook: StartWebhook) -> None:
    is_up = threading.Event()
    webhook = start_webhook(lambda hit: Answer(200 if is_up.is_set() else 503))
    service.create(http_task("stubborn", webhook.url(), max_retries=1))
    service.wait_for_state("stubborn", "dead")
    is_up.set()
    service.wait_for_state("stubborn", "dead_lettered")
    assert service.http.post("/tasks/stubborn/replay").status_code == 200
    task = service.wait_for_state("stubborn", "delivered")
    assert task["attempts"][-1]["number"] == 1
    assert webhook.delivered("/hook") == ["stubborn|1", "stubborn|1"]


def test_a_webhook_may_ask_for_time(service: Service, start_webhook: StartWebhook) -> None:
    first = threading.Event()

    def answer(hit: Hit) -> Answer:
        if first.is_set():
            return Answer()
        first.set()
        return Answer(429, {"Retry-After": "2"})

    webhook = start_webhook(answer)
    service.create(http_task("asked", webhook.url()))
    service.wait_for_state("asked", "delivered")
    before, after = webhook.hits
    assert after.at - before.at >= 1.95


def test_redirects_are_not_followed(service: Service, start_webhook: StartWebhook) -> None:
    elsewhere = start_webhook()
    webhook = start_webhook(lambda hit: Answer(307, {"Location": elsewhere.url()}))
    service.create(http_task("moved", webhook.url(), max_retries=1))
    service.wait_for_state("moved", "dead")
    assert elsewhere.hits == []
    assert service.task("moved")["attempts"][0]["status"] == 307


def test_silence_ends_with_the_timeout(start_service: StartService, start_webhook: StartWebhook) -> None:
    never = threading.Event()
    webhook = start_webhook(lambda hit: Answer(hold=never))
    service = start_service(HTTP_TIMEOUT="300ms")
    service.create(http_task("silent", webhook.url(), max_retries=2))
    task = service.wait_for_state("silent", "dead")
    never.set()
    assert task["attempts"][0]["error"] == "no answer within 0.3 s"
    assert 0.25 < task["attempts"][0]["seconds"] < 2


def test_a_long_answer_is_not_read_to_its_end(service: Service, start_webhook: StartWebhook) -> None:
    webhook = start_webhook(lambda hit: Answer(200, body=b"x" * 20_000_000))
    service.create(http_task("long answer", webhook.url()))
    service.wait_for_state("long answer", "delivered")


def test_connections_are_kept_and_few_of_them(service: Service, start_webhook: StartWebhook) -> None:
    webhook = start_webhook()
    service.create_all([http_task(f"many {i}", webhook.url()) for i in range(400)])
    wait_for("all are delivered", lambda: len(webhook.hits) >= 400)
    assert len(webhook.hits) == 400
    assert 1 <= webhook.open_connections() <= 10


def test_a_dead_webhook_does_not_hold_up_the_rest(start_service: StartService, start_webhook: StartWebhook) -> None:
    never = threading.Event()
    silent, healthy = start_webhook(lambda hit: Answer(hold=never)), start_webhook()
    service = start_service(WORKERS="100")
    service.create_all([http_task(f"stuck {i}", silent.url()) for i in range(1000)])
    wait_for("the silent one is being called", lambda: len(silent.hits) >= 10)
    begun = time.monotonic()
    service.create_all([http_task(f"fine {i}", healthy.url()) for i in range(200)])
    wait_for("the healthy one has all of its own", lambda: len(healthy.hits) == 200)
    assert time.monotonic() - begun < 10
    assert len(silent.hits) == 10  # HTTP_CONCURRENCY
    never.set()
    wait_for("the silent one has all, after all", lambda: len(set(silent.delivered())) == 1000, 60)


def test_priority_overtakes_and_nobody_starves(start_service: StartService, start_webhook: StartWebhook) -> None:
    gate = threading.Event()
    webhook = start_webhook(lambda hit: Answer(hold=None if hit.key != "gate|1" else gate))
    service = start_service(WORKERS="1", HTTP_CONCURRENCY="1")
    service.create(http_task("gate", webhook.url()))
    wait_for("the only worker is busy", lambda: webhook.delivered() == ["gate|1"])
    service.create_all([http_task(f"n{i}", webhook.url()) for i in range(40)])
    service.create_all([http_task(f"p{i}", webhook.url(), is_priority=True) for i in range(40)])
    gate.set()
    wait_for("all are delivered", lambda: len(webhook.hits) == 81)
    order = [key[0] for key in webhook.delivered()][1:]
    assert order[:40].count("p") >= 28
    assert order.count("n") == 40


def test_due_tasks_are_not_late(service: Service, start_webhook: StartWebhook) -> None:
    webhook = start_webhook()
    begun = time.time()
    service.create_all([http_task(f"timed {i}", webhook.url(), base_delay=1 + i * 0.01) for i in range(100)])
    wait_for("all are delivered", lambda: len(webhook.hits) == 100)
    tasks = {task: service.task(task) for task in (f"timed {i}" for i in range(100))}
    late = sorted(
        hit.at - _due(tasks[hit.key.partition("|")[0]], 1 + int(hit.key[6:].partition("|")[0]) * 0.01)
        for hit in webhook.hits
    )
    assert late[0] > -0.01
    assert late[50] < 0.05, late
    assert min(hit.at for hit in webhook.hits) - begun > 0.99


def _due(task: dict[str, str], delay: float) -> float:
    return datetime.fromisoformat(task["created_at"]).timestamp() + delay


@pytest.mark.parametrize(
    ("settings", "is_allowed"),
    [
        ({"ENVIRONMENT": "prod"}, False),
        ({"HTTP_HOST": "0.0.0.0"}, False),
        ({"ENVIRONMENT": "prod", "ALLOWED_HTTP_HOSTS": "127.0.0.1"}, True),
    ],
)
def test_loopback_webhooks_are_for_development(
    start_service: StartService, start_webhook: StartWebhook, settings: dict[str, str], is_allowed: bool
) -> None:
    webhook = start_webhook()
    service = start_service(**settings)
    answer = service.create(http_task("loop", webhook.url()))
    assert answer.status_code == (201 if is_allowed else 400)
    if is_allowed:
        service.wait_for_state("loop", "delivered")
    else:
        assert "ALLOWED_HTTP_HOSTS" in answer.json()["error"]


def test_what_was_allowed_once_is_checked_again_when_it_is_delivered(
    start_service: StartService, start_webhook: StartWebhook
) -> None:
    webhook = start_webhook()
    lax = start_service()
    # A name that stands for this machine is only known by looking it up.
    url = webhook.url().replace("127.0.0.1", "localhost")
    lax.create(http_task("later", url, base_delay=1, max_retries=1))
    lax.stop()
    strict = start_service(ENVIRONMENT="prod")
    task = strict.wait_for_state("later", "dead")
    assert webhook.hits == []
    assert "ALLOWED_HTTP_HOSTS" in task["attempts"][0]["error"]
