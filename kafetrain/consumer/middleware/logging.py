"""Logging as a middleware."""

from __future__ import annotations

from loguru import logger

from kafetrain.errors import Pause, first_line
from kafetrain.outcome import Outcome
from kafetrain.record import Handler, Record, get_retry_attempt

__all__ = ["LoggingMiddleware"]


class LoggingMiddleware:
    """One event for each record that did not simply succeed: at DEBUG for a pause, at WARNING for a failure and a dead
    letter, else at INFO. Keys and payloads are never logged.

    `success_level` (say "DEBUG"): an event for each success too, which costs the healthy path several microseconds
    a record. `error_text`: the error's text beside its type, for handlers whose errors quote no payload.
    kafetrain's events are silent until the application calls `loguru.logger.enable("kafetrain")`. Any thread.
    """

    def __init__(self, success_level: str | None = None, *, error_text: bool = False) -> None:
        self._success_level, self._error_text = success_level, error_text
        self.skips_successes = success_level is None

    def __call__(self, record: Record, call_next: Handler) -> object:
        try:
            result = call_next(record)
        except Pause as pause:  # many a second while something is down, and nothing is wrong with the record
            _bound(record).debug("record waits for {}", pause.retry_in)
            raise
        except Exception as error:
            said = first_line(error) if self._error_text else type(error).__name__
            _bound(record).warning("handler raised {}", said)
            raise
        if result is None or result is Outcome.SUCCEEDED:
            if self._success_level is not None:
                _bound(record).log(self._success_level, "record succeeded")
        elif isinstance(result, Outcome):
            _bound(record).log("WARNING" if result is Outcome.DEAD_LETTERED else "INFO", "record {}", result.value)
        return result


def _bound(record: Record):  # type: ignore[no-untyped-def]  # loguru's Logger exists for type checkers only
    return logger.bind(
        topic=record.topic, partition=record.partition, offset=record.offset, attempt=get_retry_attempt(record)
    )
