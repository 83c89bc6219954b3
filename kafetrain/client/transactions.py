"""What a transaction's errors mean, whichever library makes it.

Until the commit itself is asked for, an error says that nothing of the transaction counts. From then on it says
nothing: only the next producer of the id finds out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from loguru import logger

from kafetrain.client.ports import ClientError, Committed, OutcomeUnknownError
from kafetrain.record import TopicPartition

__all__ = ["Transactions"]


class Transactions(ABC):
    """A `TransactionalProducerPort` without its `send`, on a library's producer.

    `membership` is asked by each transaction anew; `error_of` makes the port's error of one of the library's and of
    what was tried.
    """

    def __init__(
        self, producer: Any, membership: Callable[[], Any], error_of: Callable[[Exception, str], ClientError]
    ) -> None:
        self._producer, self._membership, self._error_of = producer, membership, error_of
        self._member: Any = None
        self._is_open = False

    def begin(self) -> None:
        self._member = self._membership()
        try:
            self._producer.begin_transaction()
        except Exception as error:
            raise self._error_of(error, "beginning a transaction") from error
        self._is_open = True

    def commit(self, next_offsets: Mapping[TopicPartition, Committed]) -> None:
        doing = f"committing a transaction for {', '.join(sorted({place.topic for place in next_offsets}))}"
        try:
            self._send_offsets(next_offsets)
        except Exception as error:
            raise self._error_of(error, doing) from error
        self._is_open = False
        try:
            self._end()
        except Exception as error:
            raise OutcomeUnknownError(str(self._error_of(error, doing)), retriable=True) from error

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            try:
                self._abort()
            except Exception as error:
                logger.debug("a transaction is left to its timeout: {}", self._error_of(error, "aborting"))
        self._free()

    @abstractmethod
    def _send_offsets(self, next_offsets: Mapping[TopicPartition, Committed]) -> None: ...

    @abstractmethod
    def _end(self) -> None:
        """Commit, after the offsets."""

    @abstractmethod
    def _abort(self) -> None:
        """Within a short time."""

    @abstractmethod
    def _free(self) -> None:
        """Everything that the producer holds."""
