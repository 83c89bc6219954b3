"""Where writes are made durable: each by its acknowledgement, or several together by a transaction.

What is to be written is handed over as *work*, which makes the sequence of writes: a transaction that was aborted runs
it again, and then it decides from what is known by then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

from kafetrain.tracker.sequence import Sequence, Sequencer

if TYPE_CHECKING:
    from kafetrain.tracker.state import Claim
    from kafetrain.tracker.writes import Writes

__all__ = ["AcknowledgedWrites", "Work", "WritePath"]

T = TypeVar("T")
Work: TypeAlias = Callable[[], Sequence[T]]


class WritePath(Protocol):
    """Of the partitions of one consumer. Any thread."""

    @property
    def writes(self) -> Writes:
        """For work that is run here, and for nothing else."""

    def run(self, work: Work[T], claim: Claim, completes: Collection[int] = ()) -> Future[T]:
        """The future ends with what the sequence returns, once its writes are durable and the lock table knows them.

        `claim`: on whose behalf; released, it ends in `PartitionLostError`. `completes`: offsets of that partition
        which are complete then.
        """


class AcknowledgedWrites:
    """At least once: a write is durable when it is acknowledged, and offsets are committed later on."""

    def __init__(self, writes: Writes, sequencer: Sequencer) -> None:
        self.writes, self._sequencer = writes, sequencer

    def run(self, work: Work[T], claim: Claim, completes: Collection[int] = ()) -> Future[T]:
        return self._sequencer.run(work())
