"""What an application needs of messaging, and no more: the promises of `contract.py`, in words.

Every message is handled at least once by each group. Messages of one key are handled one after the other, in the order
in which they were published. A handler that raises is called again with the same message, later, and with none behind
it of its key before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

__all__ = ["Consumer", "Handler", "Message", "Messaging", "Outgoing", "Producer"]


class Message(Protocol):
    """A Kafka record is one, as it is. Headers are in order, and a name may come twice."""

    @property
    def topic(self) -> str: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...


@dataclass(frozen=True)
class Outgoing:
    """A message that is to be published."""

    topic: str
    value: bytes
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()


Handler: TypeAlias = Callable[[Message], object]
"""Returning is success, raising is failure."""


class Producer(Protocol):
    """Any thread."""

    def publish(self, message: Message) -> None:
        """Durable on return; else it raises, and whether the message is there is not known."""

    def close(self) -> None: ...


class Consumer(Protocol):
    """A member of a group. Started and stopped once."""

    def start(self, topics: Sequence[str], handler: Handler) -> None:
        """Handle messages in the background, from the beginning where the group is new."""

    def stop(self) -> None:
        """Let running handlers end. What they have handled is not handled again by the group."""


class Messaging(Protocol):
    """Where producers and consumers come from."""

    def producer(self) -> Producer: ...

    def consumer(self, group: str) -> Consumer: ...
