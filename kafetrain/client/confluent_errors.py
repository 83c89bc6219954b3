"""confluent-kafka's errors as the ports' errors, with its text and never a secret."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from kafetrain.client.ports import ClientError, NotOwnerError, OffsetOutOfRangeError, RecordTooLargeForClientError
from kafetrain.errors import first_line
from kafetrain.record import TopicPartition

__all__ = ["AUTH_ERRORS", "OUT_OF_RANGE", "TOO_LARGE", "client_error", "error_of", "is_retriable", "text_of"]

AUTH_ERRORS = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError.ILLEGAL_SASL_STATE,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
    }
)

OUT_OF_RANGE = frozenset(
    {KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._NO_OFFSET}
)

_NOT_OWNER = frozenset(
    {
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.FENCED_MEMBER_EPOCH,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.NON_EMPTY_GROUP,
        KafkaError._ASSIGNMENT_LOST,
        KafkaError._FENCED,
    }
)

TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})

# The library tells of a retriable error only where a transaction is concerned.
_RETRIABLE = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._DESTROY,
        KafkaError._IN_PROGRESS,
        KafkaError._MSG_TIMED_OUT,
        KafkaError._NODE_UPDATE,
        KafkaError._PREV_IN_PROGRESS,
        KafkaError._PURGE_INFLIGHT,
        KafkaError._PURGE_QUEUE,
        KafkaError._QUEUE_FULL,
        KafkaError._RESOLVE,
        KafkaError._RETRY,
        KafkaError._STATE,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._TRANSPORT,
        KafkaError._UNKNOWN_BROKER,
        KafkaError._WAIT_CACHE,
        KafkaError._WAIT_COORD,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.NOT_CONTROLLER,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.THROTTLING_QUOTA_EXCEEDED,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.UNKNOWN_TOPIC_ID,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)


def error_of(error: object) -> Any:
    """The library's `KafkaError`, also out of a `KafkaException`; None for what is neither."""
    if isinstance(error, KafkaException) and error.args:
        error = error.args[0]
    return error if isinstance(error, KafkaError) else None


def is_retriable(error: object) -> bool:
    if isinstance(error, ClientError):
        return error.retriable
    found = error_of(error)
    if found is None:
        return isinstance(error, (OSError, TimeoutError, BufferError))
    return not found.fatal() and (found.retriable() or found.code() in _RETRIABLE)


def client_error(error: object, doing: str, partitions: Collection[TopicPartition] = ()) -> ClientError:
    """The port's error for one of the library's; `doing` says what was tried, `partitions` where."""
    if isinstance(error, ClientError):
        return error
    found, text = error_of(error), f"{doing}: {text_of(error)}"
    if found is not None:
        if found.code() in _NOT_OWNER:
            return NotOwnerError(text)
        if found.code() in TOO_LARGE:
            return RecordTooLargeForClientError(text)
        if found.code() in OUT_OF_RANGE and partitions:
            return OffsetOutOfRangeError(partitions)
    return ClientError(text, retriable=is_retriable(error))


def text_of(error: object) -> str:
    """One line: the error's name, and what the library says of it."""
    found = error_of(error)
    if found is None:
        return first_line(error) if isinstance(error, BaseException) else str(error)
    return f"{found.name()}: {found.str()}".strip().split("\n", 1)[0][:300]
