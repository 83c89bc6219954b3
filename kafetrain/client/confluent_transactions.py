"""The transactional producer port on confluent-kafka's `Producer`.

Records go through our producer, with its bound and its futures; the library's transactions are around them. Once one
has failed the library may say that only an abort is needed. All the same nothing more is done with its producer, so
that there is one way on from any error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import timedelta
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import TopicPartition as LibraryPartition

from kafetrain.client.confluent_errors import AUTH_ERRORS, TOO_LARGE, client_error, error_of
from kafetrain.client.confluent_producer import ConfluentProducer
from kafetrain.client.ports import AdminPort, ClientError, Committed, NotOwnerError, OutgoingRecord
from kafetrain.client.transactions import Transactions
from kafetrain.record import TopicPartition

__all__ = ["ConfluentTransactions"]

ABORT_TIMEOUT_S = 2.0

_FINAL = (
    AUTH_ERRORS
    | TOO_LARGE
    | {
        KafkaError._UNSUPPORTED_FEATURE,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.INVALID_TRANSACTION_TIMEOUT,
        KafkaError.POLICY_VIOLATION,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.UNSUPPORTED_COMPRESSION_TYPE,
        KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT,
        KafkaError.UNSUPPORTED_VERSION,
    }
)
"""Another producer would meet the same."""


class ConfluentTransactions(Transactions):
    """A `TransactionalProducerPort`. Building it settles what a former producer of its id has left open.

    `producer`: the library's. `send` waits, `max_block_s` at most, as `ConfluentProducer.send` does.
    """

    def __init__(
        self,
        producer: Any,
        id: str,
        membership: Callable[[], bytes],
        build_admin: Callable[[], AdminPort],
        *,
        timeout_s: float,
        max_block_s: float,
    ) -> None:
        super().__init__(producer, membership, _error)
        self._timeout_s = timeout_s
        try:
            producer.init_transactions(timeout_s)
        except Exception as error:
            raise _error(error, f"beginning transactions of {id}") from error
        self._sender = _Sender(lambda: producer, build_admin, max_block_s=max_block_s)

    def send(self, record: OutgoingRecord) -> Future[int]:
        return self._sender.send(record)

    def _send_offsets(self, next_offsets: Mapping[TopicPartition, Committed]) -> None:
        offsets = [
            LibraryPartition(place.topic, place.partition, committed.next_offset, committed.metadata)
            for place, committed in next_offsets.items()
        ]
        self._producer.send_offsets_to_transaction(offsets, self._member, self._timeout_s)

    def _end(self) -> None:
        self._producer.commit_transaction(self._timeout_s)

    def _abort(self) -> None:
        self._producer.abort_transaction(ABORT_TIMEOUT_S)

    def _free(self) -> None:
        self._sender.close(timedelta(0))


class _Sender(ConfluentProducer):
    """Of one library's producer: whoever owns it replaces it."""

    def _failure(self, error: Any, doing: str) -> ClientError:
        if isinstance(error, ClientError):
            return super()._failure(error, doing)
        return _error(self._refusal() or error, doing)

    def _refusal(self) -> Any:
        """Of the right to something in the transaction, which ends all its records: they are told no more than that.

        The library tells it where it is asked for what cannot be done in that state, and so is not done.
        """
        try:
            self._producer.begin_transaction()
        except KafkaException as error:
            return error if error_of(error).code() in AUTH_ERRORS else None
        return None

    def _broken_by(self, error: Any) -> None:
        pass


def _error(error: object, doing: str) -> ClientError:
    """The port's error. What only this producer meets, such as being fenced, is retriable: another one may succeed."""
    known, found = client_error(error, doing), error_of(error)
    code = None if found is None else found.code()
    if code in _FINAL or (isinstance(known, NotOwnerError) and code != KafkaError._FENCED):
        return known
    return ClientError(str(known), retriable=True)
