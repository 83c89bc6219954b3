"""Ordered retries as a middleware: what fails goes through the tracker, and the partition goes on."""

from __future__ import annotations

from kafetrain.consumer.delivery import hold_back
from kafetrain.errors import ConfigurationError
from kafetrain.outcome import Outcome
from kafetrain.record import Handler, Record
from kafetrain.tracker import ErrorTracker

__all__ = ["ErrorHandlingMiddleware"]


class ErrorHandlingMiddleware:
    """Runs the handler where the record may run; redirects or dead-letters it where it fails or must wait.

    Returns the `Outcome` to the middlewares around it (of a handler that returned a future: a future of the outcome).
    The record is complete once that outcome is durable, which the consumer waits for without blocking its threads.
    The retries themselves are a `RetryManager`'s. Any thread.
    """

    skips_successes = True

    def __init__(self, tracker: ErrorTracker) -> None:
        if not isinstance(tracker, ErrorTracker):
            raise ConfigurationError(f"ErrorHandlingMiddleware needs an ErrorTracker, not {type(tracker).__name__}")
        self.tracker = tracker

    def __call__(self, record: Record, call_next: Handler) -> object:
        result = self.tracker.submit(record, call_next)
        if type(result) is Outcome:
            return result
        outcome, done = result  # type: ignore[misc]  # the other member of the union; this is the hot path
        # What comes behind a redirected record is redirected too, which may begin before that one is durable.
        hold_back(done, key_waits=outcome not in (Outcome.REDIRECTED, Outcome.SIDELINED))
        return done if outcome is None else outcome
