"""A record's turn in its chain: from the decision what becomes of it to the last write of that."""

from __future__ import annotations

from concurrent.futures import Future

from kafetrain.core.chain import ChainKey
from kafetrain.errors import PartitionLostError
from kafetrain.futures import LightFuture
from kafetrain.outcome import Outcome
from kafetrain.tracker.sequence import Running
from kafetrain.tracker.state import Claim, TrackerState
from kafetrain.tracker.writes import SourceRecord

__all__ = ["Turn"]


class Turn(Running[Outcome]):
    """A record's turn in its chain, and the future of its outcome.

    It is over once the record's entry is in the log, or what else became of it. A failed one is never over: nothing of
    its key may be written past it.
    """

    def __init__(
        self,
        state: TrackerState,
        claim: Claim,
        key: ChainKey,
        source: SourceRecord,
        error: BaseException | None,
        *,
        die: bool,
    ) -> None:
        super().__init__()
        self._tracked = state
        self.claim, self.key, self.source = claim, key, source
        self.error, self.die = error, die
        """Until it is decided on: what its handler raised, should that have run. `die`: it is to be a dead letter,
        whatever kind of error that is."""
        self._over: LightFuture[None] | None = None

    def over(self) -> Future[None]:
        """What the next record of the chain waits for. With the mutex held, while this is the last one's turn."""
        if self._over is None:
            self._over = LightFuture()
            if self.done() and (error := self.exception()) is not None:
                self._over.set_exception(_passed_on(error))
        return self._over

    def end(self) -> None:
        """It is over."""
        with self._tracked.mutex:
            if self.claim.writing.get(self.key) is self:
                del self.claim.writing[self.key]
            over = self._over
        if over is not None and not over.done():
            over.set_result(None)

    def check_ours(self) -> None:
        """Before each write: the next owner is delivered the record again, and may have ended it already."""
        if self.claim.released:
            raise PartitionLostError(
                f"{self.source}: its partition went to another instance before its outcome was written"
            )

    def _end(self, result: Outcome | None, error: BaseException | None) -> None:
        """All is written, or something could not be."""
        if error is None:
            self.end()
        with self._tracked.mutex:
            self.claim.under_way.discard(self)
            self.error = None  # its traceback leads to the claim, and so back here
        super()._end(result, error)
        if error is not None:
            with self._tracked.mutex:
                over = self._over
            if over is not None and not over.done():
                over.set_exception(_passed_on(error))


def _passed_on(error: BaseException) -> BaseException:
    """To the next of the chain. Thousands may pass it on, and each would add to its traceback."""
    return error.with_traceback(None)
