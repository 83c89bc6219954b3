"""The retry service: how fast it accepts and delivers, how late, and what a million waiting tasks take.

    python -m tests.benchmarks.service                       everything, on SQLite and on Redis
    python -m tests.benchmarks.service --store sqlite --only create

One process serves; this one makes the load over 8 connections, and receives webhooks. Tasks are durable when they are
answered: SQLite as it always is, Redis with `appendonly yes` and `appendfsync always`. The CPU of all that takes part
is told beside each rate: a rate depends on what else the machine does, CPU hardly.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kafetrain.testing import kafka_broker
from tests.benchmarks.load import Load, cpu_s, post, post_all
from tests.benchmarks.report import percentile
from tests.integration.service.harness import Service
from tests.redis_server import RedisServer

BATCH = 100
SINGLES, BATCHED = 20_000, 150_000
PARTS = ("create", "http", "kafka", "lateness", "memory")
MESSAGE = json.dumps({"order": 4711, "text": "x" * 60})
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def a_task(id: str, delay: float, kind: str, place: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": id,
        "source": "benchmark",
        "destination_type": kind,
        "destination": place,
        "dead_destination": place,
        "max_retries": 3,
        "base_delay": delay,
        "client_id": "c",
        "message_data": MESSAGE,
    }


def singles(name: str, count: int) -> Iterator[bytes]:
    place = {"url": "http://127.0.0.1:9/hook"}
    for number in range(count):
        yield post("/tasks", json.dumps(a_task(f"{name}-{number}", 3600, "http", place)).encode())


def batches(name: str, count: int, kind: str, place: dict[str, Any], due_at: float | None = None) -> Iterator[bytes]:
    for start in range(0, count, BATCH):
        delay = 3600.0 if due_at is None else max(0.0, due_at - time.time())
        tasks = [a_task(f"{name}-{number}", delay, kind, place) for number in range(start, start + BATCH)]
        yield post("/tasks/batch", json.dumps({"tasks": tasks}).encode())


class Receiver(asyncio.Protocol):
    """The least that is a webhook: it counts, and says 200."""

    hits: list[float] = []  # noqa: RUF012  # of all connections together

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            length = int(self._received[:end].lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            if len(self._received) < end + 4 + length:
                return
            self._received = self._received[end + 4 + length :]
            self.hits.append(time.time())
            self._transport.write(OK)


def percentiles(values: list[float]) -> str:
    ordered = sorted(values)
    parts = [f"p{share:g} {percentile(ordered, share / 100) * 1000:.1f} ms" for share in (50, 99)]
    return ", ".join([*parts, f"max {ordered[-1] * 1000:.1f} ms"])


class Used:
    """CPU from here on, of the service, of Redis, and of this process."""

    def __init__(self, service: Service, redis: RedisServer | None) -> None:
        assert service.process is not None
        self._pids = {"service": service.process.pid, "load": os.getpid()}
        if redis is not None:
            self._pids["Redis"] = redis.pid
        self._before = {name: cpu_s(pid) for name, pid in self._pids.items()}

    def by(self, tasks: int) -> str:
        each = {name: (cpu_s(pid) - self._before[name]) / tasks * 1e6 for name, pid in self._pids.items()}
        return "µs of CPU a task: " + ", ".join(f"{name} {took:.0f}" for name, took in each.items())


def create(service: Service, redis: RedisServer | None) -> None:
    # Encoded before: what is measured is the service, not this program.
    requests = list(singles("single", SINGLES))
    used, load = Used(service, redis), post_all(service.port, requests)
    print(f"  created singly: {SINGLES / load.seconds:,.0f}/s ({percentiles(load.taken)}; {used.by(SINGLES)})")
    requests = list(batches("batch", BATCHED, "http", {"url": "http://127.0.0.1:9/hook"}))
    used, load = Used(service, redis), post_all(service.port, requests)
    print(
        f"  created by {BATCH}: {BATCHED / load.seconds:,.0f} tasks/s ({percentiles(load.taken)}; {used.by(BATCHED)})"
    )


async def send(port: int, requests: Iterable[bytes]) -> Load:
    """While this process also receives webhooks."""
    return await asyncio.to_thread(post_all, port, requests)


def http(service: Service, redis: RedisServer | None, count: int = 10_000) -> None:
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", 0)
        place = {"url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"}
        Receiver.hits.clear()
        due_at = time.time() + 5
        await send(service.port, batches("http", count, "http", place, due_at))
        used = Used(service, redis)
        while len(Receiver.hits) < count:
            await asyncio.sleep(0.05)
        print(f"  delivered to one webhook: {count / (max(Receiver.hits) - due_at):,.0f}/s ({used.by(count)})")
        server.close()

    asyncio.run(run())


def lateness(service: Service, count: int = 3000) -> None:
    """A hundred a second become due."""

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", 0)
        place = {"url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"}
        Receiver.hits.clear()
        first = time.time() + 5

        def requests() -> Iterator[bytes]:
            for number in range(count):
                delay = first + number / 100 - time.time()
                yield post("/tasks", json.dumps(a_task(f"late-{number}", delay, "http", place)).encode())

        await send(service.port, requests())
        while len(Receiver.hits) < count:
            await asyncio.sleep(0.05)
        late = [at - first - number / 100 for number, at in enumerate(sorted(Receiver.hits))]
        print(f"  lateness of {count:,}, a hundred a second: {percentiles([max(0.0, one) for one in late])}")
        server.close()

    asyncio.run(run())


def kafka(service: Service, redis: RedisServer | None, server: str, topic: str, count: int = 20_000) -> None:
    host, port = server.split(":")
    place = {"host": host, "port": port, "topic": topic}
    due_at = time.time() + 6
    post_all(service.port, batches("kafka", count, "kafka", place, due_at))
    used = Used(service, redis)
    wanted = f'kafka_retry_tasks_processed_total{{destination_type="kafka"}} {float(count)}'
    while wanted not in service.http.get("/metrics").text:
        time.sleep(0.05)
    print(f"  delivered to one topic: {count / (time.time() - due_at):,.0f}/s ({used.by(count)})")


def memory(service: Service, redis: RedisServer | None, count: int = 1_000_000) -> None:
    assert service.process is not None
    before = _memory_mib(service.process.pid)
    place = {"url": "http://127.0.0.1:9/hook"}
    requests = batches("memory", count, "http", place)
    seconds = 0.0
    while some := list(itertools.islice(requests, 500)):  # not all of them in this process's memory
        seconds += post_all(service.port, some).seconds
    after = _memory_mib(service.process.pid)
    text = f"  {count:,} waiting tasks: the process has {before:.0f} MiB before and {after:.0f} after"
    if redis is not None:
        text += f"; Redis {_memory_mib(redis.pid):,.0f} MiB"
    else:
        text += f"; the file {(service.folder / 'kafetrain.db').stat().st_size / 2**20:,.0f} MiB"
    print(f"{text}; created at {count / seconds:,.0f}/s")


def _memory_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--store", choices=["sqlite", "redis"], action="append")
    options.add_argument("--only", choices=PARTS, action="append")
    given = options.parse_args()
    parts = given.only or PARTS
    with contextlib.ExitStack() as closing:
        brokers = ""
        if "kafka" in parts:
            broker = closing.enter_context(kafka_broker())
            brokers = broker.bootstrap_servers.split(",")[0]
        for store in given.store or ["sqlite", "redis"]:
            print(f"{store}:")
            folder = Path(closing.enter_context(tempfile.TemporaryDirectory()))
            redis = RedisServer(folder / "redis") if store == "redis" else None
            settings = {"LOG_LEVEL": "warning", "KAFKA_BROKERS": brokers or "localhost:9092"}
            if redis is not None:
                redis.start()
                closing.callback(redis.stop)
                settings["REDIS_ADDR"] = redis.address
            service = Service(folder, **settings)
            closing.callback(service.close)
            service.start()
            if "create" in parts:
                create(service, redis)
            if "http" in parts:
                http(service, redis)
            if "kafka" in parts:
                kafka(service, redis, brokers, broker.create_unique_topic(4))
            if "lateness" in parts:
                lateness(service)
            if "memory" in parts:
                memory(service, redis)
            service.stop()


if __name__ == "__main__":
    main()
