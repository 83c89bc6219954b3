"""Apps on a real broker: routing, retries or not, payloads, hooks, publishing, and `kafetrain run`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from kafetrain import App, ConfigurationError, ConstantBackoff, Record, get_retry_attempt
from kafetrain.client.ports import ClientError
from tests.clients import named_for
from tests.integration.journal import Journal
from tests.waiting import wait_for

if TYPE_CHECKING:
    from kafetrain.testing import Broker
    from kafetrain.testing.pytest_plugin import TopicFactory
    from tests.integration.cluster import Cluster, MakeSettings

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
SOON = ConstantBackoff(timedelta(milliseconds=20))

MakeApp = Callable[..., App]


@pytest.fixture
def make_app(cluster: Cluster, kafetrain_broker: Broker, make_settings: MakeSettings, library: str) -> MakeApp:
    def make(**changes: Any) -> App:
        options = {**kafetrain_broker.client_options, **changes.pop("client_options", {})}
        defaults: dict[str, Any] = {
            "brokers": kafetrain_broker.bootstrap_servers,
            "client": library,
            "client_options": named_for(library, options),
            "group": make_settings().group_id,
            "backoff": SOON,
        }
        return App(**{**defaults, **changes})

    return make


def test_each_record_goes_to_the_handler_of_its_topic_and_is_retried_with_that_ones_settings(
    make_app: MakeApp, cluster: Cluster, kafetrain_topic: TopicFactory
) -> None:
    one, two, three = (kafetrain_topic(prefix=prefix) for prefix in ("orders", "refunds", "others"))
    app, seen = make_app(), {"one": Journal(), "refunds": Journal(), "rest": Journal()}
    for topic in (one, two, three):
        cluster.write(topic, b"k", b"m0", b"m1")

    @app.handler(one)
    def first(record: Record) -> None:
        seen["one"].recording(fail_twice)(record)

    @app.handler(f"{two[:-4]}*", max_retries=1, free_on_dlq=True)
    def second(record: Record) -> None:
        seen["refunds"].recording(fail_twice)(record)

    @app.handler(three, concurrency=2)
    def third(record: Record) -> None:
        seen["rest"].recording(lambda record: None)(record)

    def fail_twice(record: Record) -> None:
        if get_retry_attempt(record) < 2:
            raise ConnectionError

    with app:
        wait_for("the first has ended", lambda: seen["one"].offsets("ended") == [0, 1], check=app.check)
        wait_for("the second is dead", lambda: len(cluster.read(f"dlq-{two}")) == 2, check=app.check)
        wait_for("the third has ended", lambda: seen["rest"].offsets("ended") == [0, 1], check=app.check)
    assert seen["one"].attempts(0) == [0, 1, 2]
    assert seen["refunds"].attempts(0) == [0, 1]
    for topic in (one, two, three):
        assert cluster.committed(app.settings.group_id, topic)[0][0] == 2


def test_start_from_beginning_false_skips_what_was_written_before(
    make_app: MakeApp, cluster: Cluster, kafetrain_topic: TopicFactory
) -> None:
    topic, seen = kafetrain_topic(prefix="orders"), list[bytes]()
    cluster.write(topic, b"a", b"before")
    app = make_app(start_from_beginning=False)

    @app.handler(topic)
    def handle(record: Record) -> None:
        seen.append(record.value)

    def one_came() -> bool:
        cluster.write(topic, b"a", b"after")
        return bool(seen)

    with app:
        wait_for("a later one has come", one_came, check=app.check)
    assert set(seen) == {b"after"}


def test_without_retry_what_fails_is_not_committed_and_runs_again_also_after_a_restart(
    make_app: MakeApp, cluster: Cluster, kafetrain_topic: TopicFactory
) -> None:
    topic, seen, healed = kafetrain_topic(prefix="orders"), list[int](), threading.Event()
    cluster.write(topic, b"a", b"good", b"bad", b"after")
    app = make_app()

    @app.handler(topic, retry=False)
    def handle(record: Record) -> None:
        seen.append(record.offset)
        if record.value == b"bad" and not healed.is_set():
            raise ConnectionError

    with app:
        wait_for("it ran again", lambda: seen.count(1) >= 3, check=app.check)
    assert cluster.committed(app.settings.group_id, topic)[0][0] == 1
    assert not cluster.exists(f"retry-{topic}")
    seen.clear()
    healed.set()
    with app:
        wait_for("all have run", lambda: seen == [1, 2], check=app.check)
    assert cluster.committed(app.settings.group_id, topic)[0][0] == 3


def test_with_auto_commit_and_without_retry_what_fails_is_lost(
    make_app: MakeApp, cluster: Cluster, kafetrain_topic: TopicFactory
) -> None:
    topic, seen = kafetrain_topic(prefix="orders"), list[int]()
    cluster.write(topic, b"a", b"bad", b"after")
    app = make_app(auto_commit=True)

    @app.handler(topic, retry=False)
    def handle(record: Record) -> None:
        seen.append(record.offset)
        raise ConnectionError

    with app:
        wait_for("both have had their run", lambda: seen == [0, 1], check=app.check)
    assert cluster.committed(app.settings.group_id, topic)[0][0] == 2


class Order(BaseModel):
    number: int
    customer: str


def test_a_payload_that_is_no_model_is_a_dead_letter_that_names_the_field(
    make_app: MakeApp, cluster: Cluster, kafetrain_topic: TopicFactory
) -> None:
    topic, seen = kafetrain_topic(prefix="orders"), list[tuple[Order, int]]()
    cluster.write_all(
        topic,
        [(0, b"a", b'{"number": 1, "customer": "ann"}'), (0, b"b", b'{"number": "hunter2"}')],
    )
    app = make_app()

    @app.handler(topic)
    def handle(order: Order, record: Record) -> None:
        seen.append((order, record.offset))

    with app:
        wait_for("the other one is dead", lambda: len(cluster.read(f"dlq-{topic}")) == 1, check=app.check)
        wait_for("the good one has come", lambda: seen == [(Order(number=1, customer="ann"), 0)], check=app.check)
    (dead,) = cluster.read(f"dlq-{topic}")
    headers = dict(dead.headers)
    assert headers["x-dlq-state"] == b"not-retriable"
    assert b"customer: field required" in headers["x-dlq-reason"]
    assert b"number: input should be a valid integer" in headers["x-dlq-reason"]
    assert b"hunter2" not in headers["x-dlq-reason"]


def test_handlers_publish_middlewares_stand_around_and_hooks_enclose_it_all(
    make_app: MakeApp, cluster: Cluster, kafetrain_topic: TopicFactory
) -> None:
    topic, invoices = kafetrain_topic(prefix="orders"), kafetrain_topic(prefix="invoices")
    cluster.write(topic, b"a", b'{"number": 1, "customer": "ann"}')
    told, app = list[str](), make_app(topics=topic)
    invoice = app.publisher(invoices)

    def outer(record: Record, call_next: Any) -> object:
        told.append("outer")
        return call_next(record)

    def inner(record: Record, call_next: Any) -> object:
        told.append("inner")
        return call_next(record)

    app.use(outer)
    app.on_start(lambda: told.append("start"))
    app.on_stop(lambda: told.append("stop"))
    app.on_stop(lambda: told.append("stop first"))

    @app.handler(middlewares=[inner])
    def handle(order: Order) -> None:
        assert invoice.publish(order, key="k", headers={"a": "b"}).offset == 0
        assert invoice.publish({"plain": [1]}, headers=[("a", b"b"), ("a", b"c")]).offset == 1
        assert invoice.publish(None, key=b"k").offset == 2
        told.append("handled")
        app.stop()  # in a handler it only asks

    app.run()
    assert told == ["start", "outer", "inner", "handled", "stop first", "stop"]
    one, two, three = cluster.read(invoices)
    assert (one.key, json.loads(one.value), one.headers) == (b"k", {"number": 1, "customer": "ann"}, [("a", b"b")])
    assert (two.key, json.loads(two.value), two.headers) == (None, {"plain": [1]}, [("a", b"b"), ("a", b"c")])
    assert three.value is None
    with pytest.raises(ConfigurationError, match="cannot be published"):
        invoice.publish(object())


def test_a_start_that_fails_leaves_nothing_running(make_app: MakeApp, kafetrain_topic: TopicFactory) -> None:
    told, app = list[str](), make_app()
    app.handler(kafetrain_topic(prefix="orders"))(print)
    app.on_stop(lambda: told.append("stop"))

    @app.on_start
    def refuse() -> None:
        raise RuntimeError("the database is away")

    with pytest.raises(RuntimeError, match="the database is away"):
        app.run()
    assert told == ["stop"]
    nobody = make_app(brokers="127.0.0.1:1", client_options={"bootstrap_timeout_ms": 300})
    nobody.handler("orders-*")(print)
    with pytest.raises(ClientError, match=r"127\.0\.0\.1:1"):
        nobody.run()


# kafetrain run

APP = """
import threading
from kafetrain import App

app = App.from_file()

@app.handler()
def handle(record):
    print("started", record.offset, flush=True)
    if record.value == b"slow":
        threading.Event().wait(0.5)
    print("ended", record.offset, flush=True)

app.on_stop(lambda: print("stopped", flush=True))
"""


@pytest.fixture
def folder(kafetrain_broker: Broker, kafetrain_topic: TopicFactory, tmp_path: Path) -> Path:
    """With `billing.py`, and a `kafetrain.yaml` that names a topic."""
    (tmp_path / "billing.py").write_text(APP)
    kafka = {
        "brokers": kafetrain_broker.bootstrap_servers,
        "client_options": kafetrain_broker.client_options,
        "group": f"group-{uuid.uuid4().hex[:8]}",
        "topics": [kafetrain_topic(2, prefix="orders")],
    }
    (tmp_path / "kafetrain.yaml").write_text(json.dumps({"kafka": kafka}))  # JSON is YAML
    return tmp_path


def section(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "kafetrain.yaml").read_text())["kafka"])


@contextmanager
def running(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "kafetrain", "run", "billing:app", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, env=environment
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(30)


def read_until(stream: IO[str] | None, *wanted: str) -> list[str]:
    assert stream is not None
    lines: list[str] = []
    while not set(wanted) <= set(lines):
        line = stream.readline()
        assert line, f"ended before {wanted}: {lines}"
        lines.append(line.strip())
    return lines


def test_run_finishes_what_runs_when_it_is_asked_to_stop(cluster: Cluster, folder: Path) -> None:
    (topic,), group = section(folder)["topics"], section(folder)["group"]
    cluster.write(topic, b"a", b"quick", b"slow")
    with running(folder, "--json-logs", "--log-level", "debug") as process:
        assert read_until(process.stdout, "started 1") == ["started 0", "ended 0", "started 1"]
        process.terminate()
        out, err = process.communicate(timeout=90)
    assert (process.returncode, out.splitlines()) == (0, ["ended 1", "stopped"]), err
    assert cluster.committed(group, topic)[0][0] == 2
    events = [json.loads(line) for line in err.splitlines()]
    assert all({"time", "level", "message"} <= event.keys() for event in events)


def test_workers_share_the_partitions_and_stop_together(cluster: Cluster, folder: Path) -> None:
    (topic,), group = section(folder)["topics"], section(folder)["group"]
    with running(folder, "--workers", "2") as process:
        wait_for("both are members", lambda: members(cluster, group) == 2)
        cluster.write_all(topic, [(0, b"a", b"x"), (1, b"b", b"x")])
        read_until(process.stdout, "ended 0")
        wait_for(
            "both are committed",
            lambda: {p: at for p, (at, _) in cluster.committed(group, topic).items()} == {0: 1, 1: 1},
        )
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    assert out.splitlines().count("stopped") == 2
    assert members(cluster, group) == 0


def test_workers_whose_parent_was_killed_end_as_if_they_were_asked(cluster: Cluster, folder: Path) -> None:
    (topic,), group = section(folder)["topics"], section(folder)["group"]
    cluster.write(topic, b"a", b"x")
    with running(folder, "--workers", "2") as process:
        read_until(process.stdout, "ended 0")
        wait_for("both work", lambda: members(cluster, group) == 2)
        process.kill()
        assert process.stdout is not None
        assert process.stdout.read().splitlines().count("stopped") == 2  # its end: the last of them has closed it
    assert members(cluster, group) == 0
    assert cluster.committed(group, topic)[0][0] == 1


def members(cluster: Cluster, group: str) -> int:
    try:
        return len(cluster._admin.describe_groups([group])[group]["members"])
    except Exception:
        return 0  # not there yet


def test_reload_starts_the_changed_app(cluster: Cluster, folder: Path) -> None:
    (topic,) = section(folder)["topics"]
    with running(folder, "--reload") as process:
        cluster.write(topic, b"a", b"x")
        read_until(process.stdout, "ended 0")
        (folder / "billing.py").write_text(APP.replace('"ended"', '"now ended"'))
        read_until(process.stdout, "stopped")
        cluster.write(topic, b"a", b"x")
        read_until(process.stdout, "now ended 1")


def test_an_error_that_no_retry_can_help_ends_run_with_exit_code_1(folder: Path) -> None:
    config = section(folder)
    config |= {"brokers": "127.0.0.1:1", "client_options": {"bootstrap_timeout_ms": 300}}
    (folder / "kafetrain.yaml").write_text(json.dumps({"kafka": config}))
    with running(folder) as process:
        _, err = process.communicate(timeout=90)
    assert process.returncode == 1
    assert "could not connect to Kafka at 127.0.0.1:1" in err
    assert "Traceback" not in err
