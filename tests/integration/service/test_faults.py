"""What is lost when something is killed: nothing."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from kafetrain.testing import Broker, NoBrokerError, kafka_broker
from tests.integration.service.conftest import StartService, StartWebhook
from tests.integration.service.harness import Answer, Service, http_task
from tests.integration.service.test_kafka_delivery import kafka_task, read
from tests.redis_server import RedisServer
from tests.waiting import wait_for

OUTAGE_S = 20.0


def test_a_worker_of_two_is_killed_with_a_thousand_tasks_in_flight(
    start_service: StartService, start_webhook: StartWebhook, durable_redis: RedisServer
) -> None:
    """What the dead one had claimed comes back when its leases end. What the other delivers, it delivers once."""
    gate = threading.Event()
    webhook = start_webhook(lambda hit: Answer(hold=gate))
    settings = {"REDIS_ADDR": durable_redis.address, "LEASE": "2s", "HTTP_CONCURRENCY": "600"}
    first, second = start_service(**settings), start_service(**settings)
    first.create_all([http_task(f"t{i}", webhook.url()) for i in range(1000)])
    wait_for("many are under way", lambda: len(webhook.hits) > 100)
    first.kill()
    gate.set()
    wait_for("all have been delivered", lambda: len(set(webhook.delivered())) == 1000, 60)
    wait_for("all are known to be", lambda: second.http.get("/tasks?state=scheduled").json()["tasks"] == [])
    assert second.http.get("/tasks?state=dead").json()["tasks"] == []


def test_two_instances_deliver_each_task_once(
    start_service: StartService, start_webhook: StartWebhook, durable_redis: RedisServer
) -> None:
    webhook = start_webhook()
    settings = {"REDIS_ADDR": durable_redis.address}
    services = [start_service(**settings), start_service(**settings)]
    for number in range(10):
        services[number % 2].create_all([http_task(f"t{number}-{i}", webhook.url()) for i in range(100)])
    wait_for(
        "all are delivered",
        lambda: not any(service.http.get("/tasks?state=scheduled").json()["tasks"] for service in services),
        60,
    )
    counts = Counter(webhook.delivered())
    assert len(counts) == 1000
    assert counts.most_common(1)[0][1] == 1
    shares = [
        float(line.rpartition(" ")[2])
        for service in services
        for line in service.http.get("/metrics").text.splitlines()
        if line.startswith('kafka_retry_tasks_processed_total{destination_type="http"}')
    ]
    assert sum(shares) == 1000


def test_redis_is_killed_and_comes_back(
    start_service: StartService, start_webhook: StartWebhook, durable_redis: RedisServer
) -> None:
    webhook = start_webhook()
    service = start_service(REDIS_ADDR=durable_redis.address, LEASE="2s")
    service.create_all([http_task(f"later {i}", webhook.url(), base_delay=4) for i in range(300)])
    service.create_all([http_task(f"now {i}", webhook.url()) for i in range(700)])
    durable_redis.kill()
    wait_for("that is noticed", lambda: service.http.get("/health").status_code == 503)
    durable_redis.start()
    wait_for("all have been delivered", lambda: len(set(webhook.delivered())) == 1000, 60)


def test_the_process_is_killed_on_sqlite(start_service: StartService, start_webhook: StartWebhook) -> None:
    """Everything that was answered with 201 before the kill is delivered after the restart."""
    webhook = start_webhook()
    service = start_service(LEASE="1s")
    accepted: list[str] = []

    def create() -> None:
        with contextlib.suppress(Exception):
            for i in range(100_000):
                answer = service.create(http_task(f"t{i}", webhook.url(), base_delay=0.5))
                assert answer.status_code == 201
                accepted.append(f"{answer.json()['task_id']}|1")

    creator = threading.Thread(target=create)
    creator.start()
    wait_for("some have been accepted", lambda: len(accepted) > 200)
    service.kill()
    creator.join()
    known = set(accepted)
    start_service()
    wait_for("all that were accepted are delivered", lambda: known <= set(webhook.delivered()), 60)


def test_a_full_disk_is_503_until_there_is_room(start_service: StartService, start_webhook: StartWebhook) -> None:
    """The process may not make its files any larger, as if there were no room for that. What it knows it keeps."""
    gate = threading.Event()
    webhook = start_webhook(lambda hit: Answer(hold=gate))
    service = start_service(LEASE="1h")
    service.create_all([http_task("under way", webhook.url())])
    wait_for("it is under way", lambda: webhook.hits)
    assert service.process is not None
    fits = (service.folder / "kafetrain.db-wal").stat().st_size
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (fits, resource.RLIM_INFINITY))
    refused = service.create(http_task("meanwhile", webhook.url()))
    assert (refused.status_code, list(refused.json())) == (503, ["error"])
    health = service.http.get("/health")
    assert (health.status_code, health.json()["status"]) == (503, "unhealthy")
    gate.set()
    wait_for("it is delivered", lambda: '_processed_total{destination_type="http"} 1.0' in metrics(service))
    assert service.task("under way")["state"] == "scheduled"
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    service.wait_for_state("under way", "delivered")
    assert service.http.get("/health").status_code == 200
    assert service.create(http_task("meanwhile", webhook.url())).status_code == 201
    service.wait_for_state("meanwhile", "delivered")
    assert webhook.delivered() == ["under way|1", "meanwhile|1"]


def metrics(service: Service) -> str:
    return service.http.get("/metrics").text


@pytest.mark.parametrize("kind", ["a folder", "something else", "in a folder that takes no files"])
def test_a_file_that_cannot_be_used_is_one_sentence_and_exit_code_1(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "tasks.db"
    if kind == "a folder":
        path.mkdir()
    elif kind == "something else":
        path.write_text("no database\n" * 1000)
    else:
        path = Path("/proc/tasks.db")
    service = Service(tmp_path / "service", STORE_URL=f"sqlite:///{path}")
    try:
        assert service.spawn().wait(60) == 1
        assert service.log_text().startswith(f"error: sqlite {path}: ")
        assert len(service.log_text().splitlines()) == 1
    finally:
        service.close()


def test_sigterm_lets_what_runs_end_and_gives_back_the_rest(
    start_service: StartService, start_webhook: StartWebhook
) -> None:
    gate = threading.Event()
    webhook = start_webhook(lambda hit: Answer(hold=gate))
    service = start_service(WORKERS="15")
    service.create_all([http_task(f"t{i}", webhook.url()) for i in range(30)])
    wait_for("ten are under way", lambda: len(webhook.hits) == 10)
    assert service.process is not None
    service.process.terminate()
    wait_for("it stops", lambda: "stopping: 5 tasks are given back, 10 deliveries may end" in service.log_text())
    assert not _answers(service)
    assert service.process.poll() is None
    gate.set()
    assert service.stop() == 0
    assert len(webhook.hits) == 10
    again = start_service()
    wait_for("the others are delivered", lambda: len(webhook.hits) >= 30)
    wait_for("all are known to be", lambda: again.http.get("/tasks?state=scheduled").json()["tasks"] == [])
    assert Counter(webhook.delivered()).most_common(1)[0][1] == 1


def test_sigterm_waits_no_longer_than_it_may(start_service: StartService, start_webhook: StartWebhook) -> None:
    gate = threading.Event()
    webhook = start_webhook(lambda hit: Answer(hold=gate))
    service = start_service(SHUTDOWN_TIMEOUT="1s", LEASE="1s")
    service.create(http_task("hangs", webhook.url()))
    wait_for("it is under way", lambda: webhook.hits)
    begun = time.monotonic()
    assert service.stop() == 0
    assert time.monotonic() - begun < 6
    gate.set()
    start_service()
    wait_for("it is delivered again, with the same key", lambda: webhook.delivered() == ["hangs|1", "hangs|1"])


def test_sigterm_answers_a_request_that_does_not_end(start_service: StartService) -> None:
    service = start_service(SHUTDOWN_TIMEOUT="1s")
    with socket.create_connection(("127.0.0.1", service.port), timeout=90) as connection:
        connection.sendall(b"POST /tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        wait_for("it has come in", lambda: service.http.get("/health").status_code == 200)
        assert service.stop() == 0
        received = connection.recv(10_000)
    assert received.startswith(b"HTTP/1.1 503 ")
    assert b'{"error":"the service is stopping"}' in received
    assert "Traceback" not in service.log_text()


@pytest.fixture
def own_broker() -> Iterator[Broker]:
    try:
        with kafka_broker(allow_embedded=False) as broker:
            if not broker.can_restart:
                pytest.skip(f"a broker of kind {broker.kind!r} cannot be restarted")
            yield broker
    except NoBrokerError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.mark.kafka
def test_kafka_is_down_for_twenty_seconds(start_service: StartService, own_broker: Broker) -> None:
    """Tasks use up their retries meanwhile, or not: each is in its topic or in the dead one, and none is lost."""
    topic, dead = own_broker.create_unique_topic(2), own_broker.create_unique_topic(1)
    server = own_broker.bootstrap_servers.split(",")[0]
    service = start_service(KAFKA_BROKERS=server)
    patient = {"max_retries": 20, "base_delay": 0.5, "backoff": {"type": "constant"}}
    service.create_all([kafka_task(f"p{i}", server, topic, dead, **patient) for i in range(300)])
    service.create(kafka_task("warm", server, topic, dead))
    service.wait_for_state("warm", "delivered")
    own_broker.kill()
    down_since = time.monotonic()
    service.create_all([kafka_task(f"q{i}", server, topic, dead, **patient) for i in range(300)])
    service.create_all([kafka_task(f"i{i}", server, topic, dead, max_retries=1) for i in range(50)])
    wait_for("some seconds have passed", lambda: time.monotonic() - down_since > OUTAGE_S, OUTAGE_S + 5)
    own_broker.start()
    begun = time.monotonic()

    def all_have_ended() -> bool:
        return all(
            service.http.get("/tasks", params={"state": state, "limit": "1"}).json()["tasks"] == []
            for state in ("scheduled", "dead")
        )

    wait_for("every task has ended", all_have_ended, 90)
    ids = {record.key.decode().partition("|")[0] for name in (topic, dead) for record in read(own_broker, name)}
    expected = {f"{kind}{i}" for kind, count in (("p", 300), ("q", 300), ("i", 50)) for i in range(count)} | {"warm"}
    assert ids == expected
    assert time.monotonic() - begun < 90


def test_no_redis_at_the_start_is_one_sentence_and_exit_code_1(tmp_path: Path) -> None:
    service = Service(tmp_path, REDIS_ADDR="127.0.0.1:1", REDIS_PASSWORD="geheim")
    try:
        assert service.spawn().wait(20) == 1
        [line] = [line for line in service.log_text().splitlines() if line.startswith("error")]
        assert line.startswith("error: failed to create redis client: ")
        assert "Traceback" not in service.log_text()
        assert "geheim" not in service.log_text()
    finally:
        service.close()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"HTTP_PORT": "x"}, "HTTP_PORT: "),
        ({"STORE_URL": "mysql://a"}, "STORE_URL begins with 'mysql', which is none of redis, rediss, sqlite"),
        ({"STORE_URL": "sqlite:///a.db", "REDIS_ADDR": "a:1"}, "STORE_URL names no Redis"),
        ({"REDIS_ADDR": "nonsense"}, "REDIS_ADDR: 'nonsense' is not host:port"),
        ({"SIGNING_SECRETS": "geheim"}, "SIGNING_SECRETS: entry 1 is not client=secret"),
        ({"SUBMIT_KEYS": "geheim"}, "ADMIN_KEYS"),
        ({"LEASE": "soon"}, "LEASE: "),
    ],
)
def test_wrong_settings_are_one_sentence_and_exit_code_2(tmp_path: Path, settings: dict[str, str], said: str) -> None:
    service = Service(tmp_path, **settings)
    try:
        assert service.spawn().wait(20) == 2
        assert said in service.log_text()
        assert "Traceback" not in service.log_text()
        assert "geheim" not in service.log_text()
    finally:
        service.close()


def _answers(service: Service) -> bool:
    try:
        return service.http.get("/ready").status_code == 200
    except Exception:
        return False
