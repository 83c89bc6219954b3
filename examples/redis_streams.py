"""`kafetrain.messaging` on Redis Streams: code that knows its protocols works with another broker.

One stream a topic, one consumer group a group. To keep the order, a stream is handled by one member at a time: by the
one that holds the group's lock, a key that expires unless it is renewed. A handler that takes longer than that may run
beside another member's.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis

from kafetrain.messaging import Consumer, Handler, Message, Producer

LOCK_S = 5
AGAIN_AFTER_S = 0.05


@dataclass(frozen=True)
class Entry:
    """A message as it came from a stream."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class RedisStreams:
    """A `Messaging`."""

    def __init__(self, url: str = "redis://localhost:6379") -> None:
        self._url = url

    def producer(self) -> Producer:
        return StreamProducer(redis.Redis.from_url(self._url))

    def consumer(self, group: str) -> Consumer:
        return StreamConsumer(redis.Redis.from_url(self._url), group)


class StreamProducer:
    def __init__(self, client: Any) -> None:
        self._redis = client

    def publish(self, message: Message) -> None:
        headers = [(name, (value or b"").hex()) for name, value in message.headers]
        fields = {b"value": message.value or b"", b"headers": json.dumps(headers).encode()}
        if message.key is not None:
            fields[b"key"] = message.key
        self._redis.xadd(message.topic, fields)

    def close(self) -> None:
        self._redis.close()


class StreamConsumer:
    def __init__(self, client: Any, group: str) -> None:
        self._redis, self._group, self._name = client, group, uuid.uuid4().hex
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, topics: Sequence[str], handler: Handler) -> None:
        for topic in topics:
            try:
                self._redis.xgroup_create(topic, self._group, id="0", mkstream=True)
            except redis.ResponseError:
                pass  # the group is there already
            thread = threading.Thread(target=self._consume, args=(topic, handler), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self._redis.close()

    def _consume(self, topic: str, handler: Handler) -> None:
        lock = self._redis.lock(f"{topic}:{self._group}:lock", timeout=LOCK_S, thread_local=False)
        while not self._stopping.is_set():
            if not lock.acquire(blocking_timeout=AGAIN_AFTER_S):
                continue
            try:
                self._work(topic, handler, lock)
                lock.release()
            except redis.exceptions.LockError:
                pass  # it expired, and is another member's

    def _work(self, topic: str, handler: Handler, lock: Any) -> None:
        while not self._stopping.is_set():
            lock.reacquire()
            # What a former member left unacknowledged comes first, in its order.
            if pending := self._pending(topic):
                if not self._handle(topic, handler, pending):
                    self._stopping.wait(AGAIN_AFTER_S)
                continue
            fresh = self._redis.xreadgroup(self._group, self._name, {topic: ">"}, count=1, block=100)
            for _, entries in fresh or ():
                self._handle(topic, handler, entries)

    def _pending(self, topic: str) -> Any:
        return self._redis.xautoclaim(topic, self._group, self._name, min_idle_time=0, count=1)[1]

    def _handle(self, topic: str, handler: Handler, entries: Any) -> bool:
        """False: a handler raised. Its entry stays pending, and nothing is read past it."""
        for number, fields in entries:
            headers = [(name, bytes.fromhex(value)) for name, value in json.loads(fields[b"headers"])]
            try:
                handler(Entry(topic, fields.get(b"key"), fields[b"value"], headers))
            except Exception:
                return False
            self._redis.xack(topic, self._group, number)
        return True
