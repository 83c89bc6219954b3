"""The source loop: polls, hands records to key-ordered workers, commits what is complete.

It polls on however long handlers take, so a slow one never costs the membership. With a tracker, an assigned partition
delivers nothing until its locks are restored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from functools import partial

from loguru import logger

from kafetrain.client.ports import ClientError, Committed, ConsumerPort, NotOwnerError
from kafetrain.clock import Clock
from kafetrain.consumer.key_order import SourcePartition
from kafetrain.ownership import Ownership, by_topic
from kafetrain.record import Handler, Record, TopicPartition
from kafetrain.settings import Settings
from kafetrain.shared_ledger import SharedLedger
from kafetrain.threads import Workers
from kafetrain.tracker import ErrorTracker
from kafetrain.tracker.state import Claim, Side

__all__ = ["SourceLoop"]

IDLE_WAIT_S = 0.1
FULL_WAIT_S = 0.005

FEW, MANY = 500, 2_000
"""Records of one poll: larger batches cost less a record, smaller ones keep partitions from waiting for each other."""


class SourceLoop:
    """The thread that calls `step` owns it; `close` on the same thread, after the last step.

    `compose` gives the handler of a partition, given the claim on it.
    """

    def __init__(
        self,
        topics: Sequence[str],
        compose: Callable[[Claim | None], Handler],
        consumer: ConsumerPort,
        workers: Workers,
        settings: Settings,
        clock: Clock,
        tracker: ErrorTracker | None,
    ) -> None:
        self._compose, self._consumer, self._workers = compose, consumer, workers
        self._settings, self._clock, self._tracker = settings, clock, tracker
        patience_s = settings.shutdown_timeout.total_seconds()
        self._owned = Ownership[SourcePartition](consumer, clock, patience_s, self._claim, self._release, self._disown)
        # Threads share what there is, whatever poll it came with; the fewer polls, the less they wait for this one.
        self._few = min(FEW if settings.concurrency == 1 else MANY, settings.max_held_records)
        self._poll_size = self._few
        self._fatal: BaseException | None = None
        self._transactor = None if tracker is None else tracker.parts.transactor(consumer, self._owned.carrying)
        consumer.subscribe(topics, self._owned)
        if self._transactor is not None:
            self._transactor.start()

    def step(self) -> None:
        if self._tracker is not None:
            self._tracker.check()
        self._owned.take_events()
        self._take_over()
        if self._settings.concurrency == 1:
            self._workers.wait_for_a_free_one(FULL_WAIT_S)  # what waits for it would only grow old in memory
        polled = self._consumer.poll(timedelta(seconds=self._wait_s()), self._poll_size)
        for part in self._owned:
            part.collect()
        self._adjust_poll_size(sum(map(len, polled.values())))
        self._keep_bounds()  # before the dispatch: what ended meanwhile needs no measuring
        self._dispatch(polled)
        del polled  # the workers free what they have had in hand
        if self._fatal is not None:
            raise self._fatal
        self._owned.answer_handovers()
        self._owned.commit_if_due()

    def close(self) -> None:
        """Start nothing more, let running handlers end, commit, leave the group. Bounded by `shutdown_timeout`."""
        try:
            self._owned.close(self._poll_only)
        finally:
            if self._transactor is not None:
                self._transactor.stop()

    def _dispatch(self, polled: Mapping[TopicPartition, Sequence[Record]]) -> None:
        for place, records in polled.items():
            if (owned := self._owned.partitions.get(place)) is not None:
                owned.dispatch(records)
            else:
                self._owned.put_back(place, records[0].offset)

    def _poll_only(self) -> None:
        # Keeps the membership while running handlers end; what it delivers is dropped, and not begun in any ledger.
        self._consumer.pause(tuple(self._owned.partitions))
        self._consumer.poll(timedelta(seconds=FULL_WAIT_S))

    # Whose partitions

    def _claim(self, places: Collection[TopicPartition]) -> None:
        if self._tracker is not None:
            for topic, numbers in by_topic(places).items():
                prepared = self._tracker.state.topic(topic)
                self._tracker.state.claim(Side.SOURCE, prepared, numbers, path=self._transactor)

    def _release(self, places: Collection[TopicPartition], gone: Collection[SourcePartition]) -> None:
        if self._tracker is not None:
            for topic, numbers in by_topic(places).items():
                if topic in self._tracker.state.topics:
                    self._tracker.state.release(Side.SOURCE, self._tracker.state.topic(topic), numbers)

    def _disown(self, places: Collection[TopicPartition]) -> None:
        if self._tracker is not None:
            self._tracker.state.lose(Side.SOURCE, places)

    def _take_over(self) -> None:
        """Begin with assigned partitions whose locks are restored."""
        if self._tracker is not None:
            claims = self._tracker.state.source_claims
            for place in (*self._owned.awaited, *self._owned.partitions):
                if (claim := claims.get(place)) is not None and claim.error is not None:
                    raise claim.error
        for place in tuple(self._owned.awaited):
            metadata, adopt, claim = "", False, None
            if self._tracker is not None:
                claim = self._tracker.state.source_claims.get(place)
                if claim is None or not claim.ready:
                    continue
                metadata, adopt = claim.metadata, claim.adopt
            position = self._consumer.position(place)
            if position is None or (adopt and not self._adopt(place, Committed(position, metadata))):
                continue
            part = SourcePartition(
                place,
                position,
                metadata,
                self._compose(claim),
                self._workers,
                self._clock,
                self._set_fatal,
                whole_batches=self._settings.concurrency == 1,
                is_writing=partial(_writes, claim),
                ledger=None if self._transactor is None else SharedLedger(position),
            )
            self._owned.begin(part)

    def _adopt(self, place: TopicPartition, start: Committed) -> bool:
        """Commit the start position before the first record: a crash before the first commit is no rewind then."""
        try:
            self._consumer.commit({place: start})
        except ClientError as error:
            if not isinstance(error, NotOwnerError) and not error.retriable:
                raise
            logger.bind(topic=place.topic, partition=place.partition).debug("start not committed yet: {}", error)
            return False
        return True

    # Bounds

    def _wait_s(self) -> float:
        if self._owned.leaving or any(part.full and not part.paused for part in self._owned):
            return FULL_WAIT_S
        return IDLE_WAIT_S

    def _adjust_poll_size(self, polled: int) -> None:
        """More while handlers have ended all that came before and more is there; fewer while they have not."""
        if any(part.ledger.open_count for part in self._owned):
            self._poll_size = max(self._few, self._poll_size // 2)
        elif polled >= self._poll_size:
            self._poll_size = min(MANY, self._settings.max_held_records, self._poll_size * 2)

    def _keep_bounds(self) -> None:
        most, bytes_ = self._settings.max_held_records, self._settings.max_held_bytes
        for part in self._owned:
            paused, held = part.paused, part.ledger.open_count
            if not part.full and (paused or held >= most or part.open_bytes >= bytes_):
                part.full = True
                self._consumer.pause([part.place])
            elif part.full and not paused and held * 2 < most and part.open_bytes * 2 < bytes_:
                part.full = False
                self._consumer.resume([part.place])

    def _set_fatal(self, error: BaseException) -> None:
        """On any thread: the loop's next step raises it. The first one counts."""
        if self._fatal is None:
            self._fatal = error


def _writes(claim: Claim | None) -> bool:
    return claim is not None and claim.is_writing
