"""Everything kafetrain raises, as one tree.

KafetrainError
├── ConfigurationError          before any I/O, or about topics: names every bad field and what it may be
├── NotTrackedError             a topic was used before `start_tracking`
├── TransientError              our retries of a client error are used up; a restart resumes
├── PartitionLostError          the partition went to another instance; its next owner reads the record again
└── FatalError                  consumption stopped; nothing past the record is committed
    ├── WriteFailedError        a lock, retry record or dead letter could not be made durable
    │   └── RecordTooLargeError
    ├── RestoreTimeoutError     a redirect partition could not be read to its end
    ├── LogTruncatedError       the redirect topic holds less than a retry record proves it held
    └── NewerFormatError        a newer kafetrain wrote an entry that this one cannot read

Raised by handlers, as words of their own to say how a failure is meant:

RetriableError                  try again (`retry=False`: do not), perhaps after a delay of its own
NotRetriableError               a dead letter at once
Pause                           nothing is wrong with the record: its partition waits, then it runs again
"""

from __future__ import annotations

from datetime import timedelta

__all__ = [
    "ConfigurationError",
    "FatalError",
    "KafetrainError",
    "LogTruncatedError",
    "NewerFormatError",
    "NotRetriableError",
    "NotTrackedError",
    "PartitionLostError",
    "Pause",
    "RecordTooLargeError",
    "RestoreTimeoutError",
    "RetriableError",
    "TransientError",
    "WriteFailedError",
    "first_line",
    "text_of_error",
]


class KafetrainError(Exception):
    """The base of all errors that kafetrain raises of its own accord."""


class ConfigurationError(KafetrainError):
    """Something in the settings, the topics or the call cannot work; the text says what and what may be."""


class NotTrackedError(KafetrainError):
    """A tracker was asked about a topic that it does not track (yet)."""

    def __init__(self, topic: str, tracked: tuple[str, ...] = ()) -> None:
        known = f" Tracked now: {', '.join(tracked)}." if tracked else ""
        super().__init__(f"topic {topic!r} is not tracked; call start_tracking({topic!r}) first.{known}")
        self.topic = topic


class TransientError(KafetrainError):
    """A client call failed for longer than it is retried. Nothing was completed: a restart resumes there."""


class PartitionLostError(KafetrainError):
    """The partition was revoked while work on its record was open; its next owner reads the record again."""


class FatalError(KafetrainError):
    """Consumption has stopped and nothing past the record is committed. A restart resumes there."""


class WriteFailedError(FatalError):
    """A write that a record's completion needs was not acknowledged. Names the record, never its payload."""

    def __init__(self, what: str, source: str, topic: str, error: BaseException) -> None:
        self.what, self.source, self.topic = what, source, topic
        super().__init__(
            f"{source}: its {what} could not be written to {topic}: {first_line(error)}. Nothing past this record "
            f"is committed; a restart resumes here."
        )


class RecordTooLargeError(WriteFailedError):
    """With our headers the record no longer fits. Keeps positions and sizes, never the payload."""

    def __init__(self, source: str, topic: str, size_bytes: int, limit_bytes: int | None) -> None:
        self.what, self.source, self.topic = "record", source, topic
        self.size_bytes, self.limit_bytes = size_bytes, limit_bytes
        limit = "smaller" if limit_bytes is None else f"{limit_bytes} bytes"
        FatalError.__init__(
            self,
            f"{source} needs about {size_bytes} bytes in {topic}, whose max.message.bytes is {limit}. Was the source "
            f"topic's raised later? Set max.message.bytes of {topic} to at least {size_bytes} and restart: work "
            f"resumes at this record.",
        )


class RestoreTimeoutError(FatalError):
    """A redirect partition made no progress towards its end for `state_restore_timeout`."""

    def __init__(self, topic: str, partition: int, position: int | None, end_offset: int | None) -> None:
        self.topic, self.partition, self.position, self.end_offset = topic, partition, position, end_offset
        super().__init__(
            f"restoring the locks of {topic}[{partition}] made no progress: at offset "
            f"{'unknown' if position is None else position} of {'unknown' if end_offset is None else end_offset}. "
            f"Is a broker reachable, and may this user read {topic}? state_restore_timeout sets how long to wait."
        )


class LogTruncatedError(FatalError):
    """A retry record names a redirect offset that the log never reached."""

    def __init__(self, topic: str, partition: int, lock_offset: int, end_offset: int) -> None:
        super().__init__(
            f"{topic}[{partition}] ends at offset {end_offset}, but a retry record says its lock is at {lock_offset}: "
            f"the topic was truncated or created again. Its locks are gone; records that wait in the retry topic "
            f"cannot be told from ended ones. Restore the topic; or stop the group, delete "
            f"its three auxiliary topics and rewind the source."
        )


class NewerFormatError(FatalError):
    """An entry's `v` is higher than this version knows."""

    def __init__(self, topic: str, partition: int, offset: int, version: object, known: int) -> None:
        super().__init__(
            f"{topic}[{partition}]@{offset} has format {version!r}, and this kafetrain knows up to {known}. Finish "
            f"the rolling upgrade: this instance must be upgraded before it handles the partition."
        )


class RetriableError(Exception):
    """Raise it in a handler to say that trying again may help.

    `origin` is the cause, an exception or a text. `retry=False` makes it a dead letter at once, as
    `NotRetriableError` does. `delay` replaces the backoff policy for this attempt.
    """

    def __init__(self, origin: BaseException | str, *, retry: bool = True, delay: timedelta | None = None) -> None:
        if delay is not None and delay < timedelta(0):
            raise ValueError(f"delay must not be negative, not {delay}")
        super().__init__(str(origin))
        self.origin, self.retry, self.delay = origin, retry, delay
        if isinstance(origin, BaseException):
            self.__cause__ = origin


class NotRetriableError(Exception):
    """Raise it in a handler to say that trying again cannot help: the record becomes a dead letter."""


class Pause(Exception):
    """Raise it in a handler when something it needs is down: no attempt is counted, nothing is redirected.

    The record's partition waits for `retry_in`; then the same record runs again, in place.
    """

    def __init__(self, retry_in: timedelta) -> None:
        if not isinstance(retry_in, timedelta) or retry_in < timedelta(0):
            raise ValueError(f"retry_in must be a timedelta of zero or more, not {retry_in!r}")
        super().__init__(f"paused for {retry_in}")
        self.retry_in = retry_in


def text_of_error(error: BaseException) -> str:
    """`str(error)`, also of an error whose own text fails."""
    try:
        return str(error)
    except Exception:
        return "(its text cannot be had)"


def first_line(error: BaseException, limit: int = 300) -> str:
    """An error as one short line: its type, and the first line of its text."""
    text = text_of_error(error).strip().split("\n", 1)[0][:limit]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
