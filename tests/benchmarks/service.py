"""The retry service: how fast it accepts and delivers, how late, and what a million waiting tasks take.

    python -m tests.benchmarks.service                       everything, on SQLite and on Redis
    python -m tests.benchmarks.service --store sqlite --only create

One process serves; this one makes the load, over 8 connections of its own making, and receives webhooks. Tasks are
durable when they are answered: SQLite as it always is, Redis with `appendonly yes` and `appendfsync always`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kafetrain.testing import kafka_broker
from tests.integration.service.harness import Service
from tests.redis_server import RedisServer

CONNECTIONS = 8
BATCH = 100
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


async def post_all(port: int, path: str, bodies: Iterator[bytes]) -> list[float]:
    """Over `CONNECTIONS` connections, each with one request at a time; how long each took."""
    taken: list[float] = []

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for body in bodies:
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            begun = time.perf_counter()
            writer.write(head + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            if answer[9:12] not in (b"200", b"201"):
                raise RuntimeError(answer.decode())
            length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            taken.append(time.perf_counter() - begun)
        writer.close()

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    return taken


def singles(name: str, count: int) -> Iterator[bytes]:
    place = {"url": "http://127.0.0.1:9/hook"}
    for number in range(count):
        yield json.dumps(a_task(f"{name}-{number}", 3600, "http", place)).encode()


def batches(name: str, count: int, kind: str, place: dict[str, Any], due_at: float | None = None) -> Iterator[bytes]:
    for start in range(0, count, BATCH):
        delay = 3600.0 if due_at is None else max(0.0, due_at - time.time())
        tasks = [a_task(f"{name}-{number}", delay, kind, place) for number in range(start, start + BATCH)]
        yield json.dumps({"tasks": tasks}).encode()


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
    parts = [f"p{share:g} {ordered[int(len(ordered) * share / 100)] * 1000:.1f} ms" for share in (50, 99)]
    return ", ".join([*parts, f"max {ordered[-1] * 1000:.1f} ms"])


def create(service: Service) -> None:
    begun = time.perf_counter()
    taken = asyncio.run(post_all(service.port, "/tasks", singles("single", 20_000)))
    print(f"  created singly: {20_000 / (time.perf_counter() - begun):,.0f}/s ({percentiles(taken)})")
    # Encoded before: what is measured is the service, not this program.
    bodies = list(batches("batch", 150_000, "http", {"url": "http://127.0.0.1:9/hook"}))
    begun = time.perf_counter()
    asyncio.run(post_all(service.port, "/tasks/batch", iter(bodies)))
    print(f"  created by {BATCH}: {150_000 / (time.perf_counter() - begun):,.0f} tasks/s")


def http(service: Service, count: int = 10_000) -> None:
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", 0)
        place = {"url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"}
        Receiver.hits.clear()
        due_at = time.time() + 5
        await post_all(service.port, "/tasks/batch", batches("http", count, "http", place, due_at))
        while len(Receiver.hits) < count:
            await asyncio.sleep(0.05)
        print(f"  delivered to one webhook: {count / (max(Receiver.hits) - due_at):,.0f}/s")
        server.close()

    asyncio.run(run())


def lateness(service: Service, count: int = 3000) -> None:
    """A hundred a second become due."""

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", 0)
        place = {"url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"}
        Receiver.hits.clear()
        first = time.time() + 5

        def bodies() -> Iterator[bytes]:
            for number in range(count):
                delay = first + number / 100 - time.time()
                yield json.dumps(a_task(f"late-{number}", delay, "http", place)).encode()

        await post_all(service.port, "/tasks", bodies())
        while len(Receiver.hits) < count:
            await asyncio.sleep(0.05)
        late = [at - first - number / 100 for number, at in enumerate(sorted(Receiver.hits))]
        print(f"  lateness of {count:,}, a hundred a second: {percentiles([max(0.0, one) for one in late])}")
        server.close()

    asyncio.run(run())


def kafka(service: Service, server: str, topic: str, count: int = 20_000) -> None:
    host, port = server.split(":")
    place = {"host": host, "port": port, "topic": topic}
    due_at = time.time() + 6
    asyncio.run(post_all(service.port, "/tasks/batch", batches("kafka", count, "kafka", place, due_at)))
    wanted = f'kafka_retry_tasks_processed_total{{destination_type="kafka"}} {float(count)}'
    while wanted not in service.http.get("/metrics").text:
        time.sleep(0.05)
    print(f"  delivered to one topic: {count / (time.time() - due_at):,.0f}/s")


def memory(service: Service, redis: RedisServer | None, count: int = 1_000_000) -> None:
    before = _memory_mib(service)
    place = {"url": "http://127.0.0.1:9/hook"}
    asyncio.run(post_all(service.port, "/tasks/batch", batches("memory", count, "http", place)))
    text = f"  {count:,} waiting tasks: the process has {before:.0f} MiB before and {_memory_mib(service):.0f} after"
    if redis is not None:
        with redis.client() as client:
            used: Any = client.info("memory")
        text += f"; Redis {used['used_memory'] / 2**20:,.0f} MiB"
    else:
        text += f"; the file {(service.folder / 'kafetrain.db').stat().st_size / 2**20:,.0f} MiB"
    print(text)


def _memory_mib(service: Service) -> float:
    assert service.process is not None
    status = Path(f"/proc/{service.process.pid}/status").read_text()
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
                create(service)
            if "http" in parts:
                http(service)
            if "kafka" in parts:
                kafka(service, brokers, broker.create_unique_topic(4))
            if "lateness" in parts:
                lateness(service)
            if "memory" in parts:
                memory(service, redis)
            service.stop()


if __name__ == "__main__":
    main()
