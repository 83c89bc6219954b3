"""What every implementation of `Messaging` must hold to, as tests for pytest.

class TestRedisStreams(MessagingContract):
    @pytest.fixture
    def messaging(self) -> RedisStreams: ...

    @pytest.fixture
    def topic(self) -> str: ...                 # another one for each test; it exists
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kafetrain.messaging.protocols import Consumer, Handler, Message, Messaging, Outgoing, Producer

__all__ = ["MessagingContract"]

PATIENCE_S = 30.0


class MessagingContract:
    """Subclass it, with fixtures `messaging` and `topic`."""

    def test_what_is_published_arrives_as_it_is(self, messaging: Messaging, topic: str) -> None:
        headers = [("a", b"1"), ("b", b"\xff"), ("a", b"2")]
        seen = Seen()
        with producing(messaging) as producer, consuming(messaging, "g", topic, seen.add):
            producer.publish(Outgoing(topic, b"value", b"key", headers))
            producer.publish(Outgoing(topic, b"\x00\xff"))
            seen.wait_for(2)
        found = {message.value: message for message in seen.messages}
        first, second = found[b"value"], found[b"\x00\xff"]
        assert (first.topic, first.key, list(first.headers)) == (topic, b"key", headers)
        assert (second.topic, second.key, list(second.headers)) == (topic, None, [])

    def test_a_new_group_begins_at_the_beginning_and_each_group_has_every_message(
        self, messaging: Messaging, topic: str
    ) -> None:
        with producing(messaging) as producer:
            producer.publish(Outgoing(topic, b"early"))
            one, two = Seen(), Seen()
            with consuming(messaging, "one", topic, one.add), consuming(messaging, "two", topic, two.add):
                producer.publish(Outgoing(topic, b"late"))
                one.wait_for(2)
                two.wait_for(2)
        assert set(one.values) == set(two.values) == {b"early", b"late"}

    def test_messages_of_a_key_are_handled_in_their_order(self, messaging: Messaging, topic: str) -> None:
        seen = Seen()
        with producing(messaging) as producer, consuming(messaging, "g", topic, seen.add):
            for number in range(60):
                producer.publish(Outgoing(topic, b"%d" % number, b"key-%d" % (number % 3)))
            seen.wait_for(60)
        by_key: dict[bytes | None, list[int]] = defaultdict(list)
        for message in seen.messages:
            by_key[message.key].append(int(message.value or b""))
        assert by_key == {b"key-%d" % rest: list(range(rest, 60, 3)) for rest in range(3)}

    def test_a_message_whose_handler_raises_comes_again_and_none_of_its_key_before(
        self, messaging: Messaging, topic: str
    ) -> None:
        seen, failures = Seen(), [ConnectionError(), ConnectionError()]

        def handle(message: Message) -> None:
            if message.value == b"bad" and failures:
                raise failures.pop()
            seen.add(message)

        with producing(messaging) as producer, consuming(messaging, "g", topic, handle):
            for value in (b"good", b"bad", b"behind"):
                producer.publish(Outgoing(topic, value, b"key"))
            seen.wait_for(3)
        assert seen.values == [b"good", b"bad", b"behind"]

    def test_who_comes_after_a_stop_goes_on_where_it_ended(self, messaging: Messaging, topic: str) -> None:
        first, second, running = Seen(), Seen(), threading.Event()

        def slowly(message: Message) -> None:
            running.set()
            threading.Event().wait(0.2)
            first.add(message)

        with producing(messaging) as producer:
            with consuming(messaging, "g", topic, slowly):
                producer.publish(Outgoing(topic, b"1", b"key"))
                assert running.wait(PATIENCE_S)
            assert first.values == [b"1"], "stop waits for what runs"
            producer.publish(Outgoing(topic, b"2", b"key"))
            with consuming(messaging, "g", topic, second.add):
                second.wait_for(1)
        assert (first.values, second.values) == ([b"1"], [b"2"])


class Seen:
    """Messages in the order in which they were handled. Any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.messages: list[Message] = []

    def add(self, message: Message) -> None:
        with self._changed:
            self.messages.append(message)
            self._changed.notify_all()

    @property
    def values(self) -> list[bytes | None]:
        with self._changed:
            return [message.value for message in self.messages]

    def wait_for(self, count: int) -> None:
        with self._changed:
            enough: Callable[[], bool] = lambda: len(self.messages) >= count  # noqa: E731 - for its type
            if not self._changed.wait_for(enough, PATIENCE_S):
                raise AssertionError(f"{len(self.messages)} messages within {PATIENCE_S:g} s, and not {count}")


@contextmanager
def producing(messaging: Messaging) -> Iterator[Producer]:
    producer = messaging.producer()
    try:
        yield producer
    finally:
        producer.close()


@contextmanager
def consuming(messaging: Messaging, group: str, topic: str, handler: Handler) -> Iterator[Consumer]:
    # Groups of other tests on the same broker are others.
    consumer = messaging.consumer(f"{group}-{topic}")
    consumer.start([topic], handler)
    try:
        yield consumer
    finally:
        consumer.stop()
