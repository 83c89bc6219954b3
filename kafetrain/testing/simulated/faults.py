"""Scripted faults: what happens to a request instead of its plain success.

cluster.on(Request.COMMIT, Refuse(), client="one")      the next commit fails, and was not done
cluster.on(Request.PRODUCE, LoseAnswer(), topic="dlq")  the next write is done, and its client sees a failure
cluster.on(Request.PRODUCE, Hold(), times=None)         writes wait until the test lets them land
cluster.on(Request.END_TRANSACTION, Hold())             it is decided, and its markers wait for the test
cluster.on(Request.PRODUCE, lambda asked: ...)          called before the request; what it raises, the client sees
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from kafetrain.client.ports import ClientError

__all__ = ["Asked", "Fault", "Hold", "LoseAnswer", "Refuse", "Request", "Script"]


class Request(str, Enum):
    """What a client asks of a cluster."""

    PRODUCE = "produce"
    FETCH = "fetch"
    COMMIT = "commit"
    JOIN = "join"
    """Joining a group, and all later talk about who has which partitions."""
    OFFSETS = "offsets"
    """Where partitions begin and end."""
    COMMITTED = "committed"
    MEMBERS = "members"
    DESCRIBE = "describe"
    CONFIGS = "configs"
    CREATE = "create"
    GROW = "grow"
    DELETE_RECORDS = "delete records"
    BEGIN_TRANSACTIONS = "begin with transactions"
    """A producer takes over its transactional id."""
    TRANSACTION_OFFSETS = "offsets of a transaction"
    END_TRANSACTION = "end a transaction"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    request: Request
    client: str
    topics: Collection[str]


def _unavailable() -> ClientError:
    return ClientError("no broker answers (simulated)", retriable=True)


@dataclass(frozen=True, slots=True)
class Refuse:
    """It is not done, and fails. Without an `error`: as if no broker had answered, to be tried again."""

    error: ClientError = field(default_factory=_unavailable)


@dataclass(frozen=True, slots=True)
class LoseAnswer:
    """It is done, and fails."""

    error: ClientError = field(default_factory=_unavailable)


@dataclass(frozen=True, slots=True)
class Hold:
    """Of writes: nothing happens until the test says so; see `Write`. `appended`: only the acknowledgement waits.

    Of the end of a transaction: it is decided and answered, and its markers wait; see `OngoingTransaction`.
    """

    appended: bool = False


Fault: TypeAlias = "Refuse | LoseAnswer | Hold | Callable[[Asked], object]"


@dataclass(slots=True, eq=False)
class Script:
    """One `cluster.on`. `client`, `topic` None: any."""

    request: Request
    fault: Fault
    client: str | None = None
    topic: str | None = None
    times: int | None = 1
    """How often it still happens. None: always."""
    hits: int = 0
    """How often it has happened."""

    def matches(self, asked: Asked) -> bool:
        return (
            self.times != 0
            and asked.request is self.request
            and self.client in (None, asked.client)
            and (self.topic is None or self.topic in asked.topics)
        )

    def hit(self) -> None:
        self.hits += 1
        if self.times is not None:
            self.times -= 1

    def stop(self) -> None:
        """It happens no more."""
        self.times = 0
