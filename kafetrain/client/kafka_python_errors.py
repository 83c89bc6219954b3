"""kafka-python's errors as the ports' errors, with its text and never a secret."""

from __future__ import annotations

from kafka import errors as kafka_errors

from kafetrain.client.ports import ClientError, NotOwnerError, OffsetOutOfRangeError, RecordTooLargeForClientError
from kafetrain.errors import first_line
from kafetrain.record import TopicPartition

__all__ = ["AUTH_ERRORS", "client_error", "is_retriable"]

AUTH_ERRORS = (
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.IllegalSaslStateError,
    kafka_errors.AuthorizationError,
)

_NOT_OWNER = (
    kafka_errors.CommitFailedError,
    kafka_errors.RebalanceInProgressError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.UnknownMemberIdError,
    kafka_errors.FencedInstanceIdError,
    kafka_errors.FencedMemberEpochError,
    kafka_errors.StaleMemberEpochError,
    kafka_errors.NonEmptyGroupError,
)

_TOO_LARGE = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)


# UnknownBrokerId: what we know of the cluster is older than what we asked for.
_RETRIABLE = (kafka_errors.RetriableError, kafka_errors.UnknownBrokerIdError, OSError)


def is_retriable(error: BaseException) -> bool:
    return isinstance(error, _RETRIABLE)


def client_error(error: BaseException, doing: str) -> ClientError:
    """The port's error for one of kafka-python's; `doing` says what was tried, as in "committing for group g"."""
    if isinstance(error, ClientError):
        return error
    text = f"{doing}: {_text(error)}{_missing_right(error, doing)}"
    if isinstance(error, kafka_errors.UnsupportedCodecError):
        text += ". Another program compresses so; to read it: pip install 'kafetrain[compression]'"
    if isinstance(error, _NOT_OWNER):
        return NotOwnerError(text)
    if isinstance(error, _TOO_LARGE):
        return RecordTooLargeForClientError(text)
    if isinstance(error, (kafka_errors.OffsetOutOfRangeError, kafka_errors.NoOffsetForPartitionError)) and error.args:
        return OffsetOutOfRangeError([TopicPartition(*place) for place in error.args[0]])
    if isinstance(error, kafka_errors.LogTruncationError):
        # The log was cut below the position: the broker has nothing there, as if it were beyond the end.
        return OffsetOutOfRangeError([TopicPartition(*place) for place in error.divergent_offsets])
    if isinstance(error, kafka_errors.CorruptRecordError):
        # Perhaps damaged on its way only, so that another fetch gets it whole.
        return ClientError(f"{text}. The position has not moved", retriable=True)
    return ClientError(text, retriable=is_retriable(error))


# By the first word of what was tried.
_RIGHTS = {
    "asking": "Describe",
    "beginning": "Write",
    "committing": "Read",
    "creating": "Create",
    "deleting": "Delete",
    "describing": "Describe",
    "growing": "Alter",
    "listing": "Describe",
    "polling": "Read",
    "sending": "Write",
}


def _missing_right(error: BaseException, doing: str) -> str:
    # A broker says what it was about, and not which right was missing.
    right = _RIGHTS.get(doing.split(" ", 1)[0])
    if right is None or not isinstance(error, kafka_errors.AuthorizationError):
        return ""
    if isinstance(error, kafka_errors.GroupAuthorizationFailedError) and right != "Describe":
        right = "Read"
    included = " (Read or Write would include it)" if right == "Describe" else ""
    return f". This user lacks {right} there{included}"


def _text(error: BaseException) -> str:
    # Texts of kafka-python's errors begin with their type already.
    if isinstance(error, kafka_errors.KafkaError):
        return str(error).strip().split("\n", 1)[0][:300].removesuffix(": None")
    return first_line(error)
