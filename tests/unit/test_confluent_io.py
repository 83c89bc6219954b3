"""The thread that owns a librdkafka consumer, on a stand-in for that."""

from __future__ import annotations

from typing import Any

import pytest

from kafetrain.client.confluent_inbox import Inbox
from kafetrain.client.confluent_io import ConsumerThread
from kafetrain.client.ports import ClientError


class Broken:
    """The library's consumer, as it is after a bug."""

    def subscribe(self, *_: object, **__: object) -> None: ...

    def poll(self, _: float) -> Any:
        raise RuntimeError("no more")

    def close(self) -> None: ...


def test_nothing_is_asked_again_of_a_consumer_that_has_failed() -> None:
    """Who closes tries a refused commit for seconds, and each time it would be refused at once."""
    events: Any = None
    thread = ConsumerThread(Broken(), "group g", Inbox(), lambda places: {})
    thread.subscribe(["orders"], events)
    assert thread.over.wait(30)
    with pytest.raises(ClientError, match="committing: the consumer has failed: RuntimeError: no more") as caught:
        thread.call(lambda: None, 5.0, "committing")
    assert not caught.value.retriable
