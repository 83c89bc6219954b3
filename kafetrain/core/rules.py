"""The protocol's decisions, each a pure function: what the source path does with a record, who may run of a chain,
and what a failure leads to. The order of the tests in a function is the order of the rules.
"""

from __future__ import annotations

from datetime import timedelta
from enum import Enum

from kafetrain.core.chain import Chain
from kafetrain.core.lock_table import SourceLocks
from kafetrain.errors import RetriableError
from kafetrain.record import BackoffPolicy

__all__ = ["SourceStep", "due_after", "exhausted", "runnable_head", "source_step", "to_park"]


class SourceStep(Enum):
    """What the source path does with a record."""

    RUN = "run"
    COMPLETE = "complete"
    """It has ended already, or a later one of its key is known, which proves the same."""
    REPEAT_RETRY_RECORD = "repeat the retry record"
    """Its entry is durable; never a second one, or a tombstone between the two would be undone."""
    SIDELINE = "sideline"
    """An earlier one of its key is open: redirect it without running it, no attempt counted."""


def source_step(locks: SourceLocks, chain: Chain | None, offset: int) -> SourceStep:
    """The first rule that matches. `chain`: of the record's key, None where nothing is known of it."""
    if offset in locks.entries:  # before its chain: an unreadable entry does not tell its key
        return SourceStep.REPEAT_RETRY_RECORD if locks.entries.is_pending(offset) else SourceStep.COMPLETE
    if chain is None:
        return SourceStep.RUN
    if offset in chain.ended or locks.later_id_known(chain, offset):
        return SourceStep.COMPLETE
    if chain.open and chain.open[0] < offset:
        return SourceStep.SIDELINE
    return SourceStep.RUN


def runnable_head(locks: SourceLocks, chain: Chain) -> int | None:
    """The one id of the chain that may run once it is due; None where there is none, or the key is dead."""
    if not chain.open:
        return None
    head = chain.open[0]
    return head if locks.entries.is_pending(head) else None


def to_park(locks: SourceLocks, chain: Chain) -> int | None:
    """The next id to park behind a dead head, None where the head lives or nothing waits behind it."""
    if not chain.open or locks.entries.is_pending(chain.open[0]):
        return None
    return next(filter(locks.entries.is_pending, chain.open), None)


def exhausted(
    failures: int,
    max_retries: int | None,
    first_failure_ms: int | None = None,
    now_ms: int = 0,
    maximum_age: timedelta | None = None,
) -> bool:
    """Was that the last run? `max_retries` counts the runs after the first one, `maximum_age` the time since it failed.

    Without `first_failure_ms` this failure is the first: no age ends it.
    """
    if max_retries is not None and failures > max_retries:
        return True
    if maximum_age is None or first_failure_ms is None:
        return False
    return now_ms - first_failure_ms > maximum_age / timedelta(milliseconds=1)


def due_after(error: BaseException, failures: int, backoff: BackoffPolicy, now_ms: int) -> int:
    """When to run again, in ms since the epoch: the error's own delay, else the policy's. Never early: rounded up."""
    own = error.delay if isinstance(error, RetriableError) else None
    delay = own if own is not None else backoff(failures)
    return now_ms + max(0, -(-delay // timedelta(milliseconds=1)))
