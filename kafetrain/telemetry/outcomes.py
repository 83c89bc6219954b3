"""What became of a call, as a middleware sees it, whether it ended at once or a future tells later."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from kafetrain.errors import Pause
from kafetrain.handlers import has_no_outcome
from kafetrain.outcome import Outcome
from kafetrain.record import Handler, Record

__all__ = ["FAILED", "NO_OUTCOME", "PAUSED", "observe"]

FAILED, PAUSED, NO_OUTCOME = "failed", "paused", "none"

SUCCEEDED = Outcome.SUCCEEDED.value

Tell = Callable[[str, BaseException | None], None]


def observe(record: Record, call_next: Handler, tell: Tell) -> object:
    """Call the handler; `tell` its outcome's name, and its error, once it is known. Returns and raises what it does."""
    try:
        result = call_next(record)
    except Pause as pause:
        tell(PAUSED, pause)
        raise
    except BaseException as error:
        tell(FAILED, error)
        raise
    if isinstance(result, Future):
        result.add_done_callback(lambda done: _tell_of(done, tell))
    else:
        tell(result.value if isinstance(result, Outcome) else SUCCEEDED, None)
    return result


def _tell_of(done: Future[Any], tell: Tell) -> None:
    if has_no_outcome(done):
        tell(NO_OUTCOME, None)
        return
    error = done.exception()
    if error is not None:
        tell(PAUSED if isinstance(error, Pause) else FAILED, error)
    else:
        result = done.result()
        tell(result.value if isinstance(result, Outcome) else SUCCEEDED, None)
