"""Is it worth trying again? The one place that answers it, for settings and for the plain function."""

from __future__ import annotations

from collections.abc import Iterable

from kafetrain.errors import NotRetriableError, RetriableError

__all__ = ["decide", "is_retriable"]


def is_retriable(error: BaseException) -> bool:
    """Whether a failed record is tried again, with the default settings: any `Exception` is, unless it says not.

    `RetriableError` is unless `retry=False`; `NotRetriableError` is not. `Settings.is_retriable` knows
    `retry_on` and `never_retry_on` as well.
    """
    return decide(error, retry_on=(Exception,), never_retry_on=())


def decide(
    error: BaseException,
    *,
    retry_on: Iterable[type[BaseException]],
    never_retry_on: Iterable[type[BaseException]],
) -> bool:
    """What the error says itself comes first, then `never_retry_on`, then `retry_on`."""
    if isinstance(error, NotRetriableError):
        return False
    if isinstance(error, RetriableError):
        return error.retry
    return isinstance(error, tuple(retry_on)) and not isinstance(error, tuple(never_retry_on))
