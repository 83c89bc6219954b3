"""The source loop: polls, hands records to key-ordered workers, commits what is complete.

It polls on however long handlers take, so a slow one never costs the membership. With a tracker, an assigned partition
delivers nothing until its locks are restored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

from loguru import logger

from kafetrain.client.ports import ClientError, Committed, ConsumerPort, NotOwnerError
from kafetrain.clock import Clock
from kafetrain.consumer.key_order import SourcePartition
from kafetrain.handover import Assigned, Handover, Lost, Rebalances
from kafetrain.record import Handler, TopicPartition
from kafetrain.settings import Settings
from kafetrain.threads import Workers
from kafetrain.tracker import ErrorTracker
from kafetrain.tracker.state import Side

__all__ = ["SourceLoop"]

IDLE_WAIT_S = 0.1
FULL_WAIT_S = 0.005
COMMIT_EVERY_S = 1.0


class SourceLoop:
    """The thread that calls `step` owns it; `close` on the same thread, after the last step."""

    def __init__(
        self,
        topics: Sequence[str],
        handler: Handler,
        consumer: ConsumerPort,
        workers: Workers,
        settings: Settings,
        clock: Clock,
        tracker: ErrorTracker | None,
    ) -> None:
        self._handler, self._consumer, self._workers = handler, consumer, workers
        self._settings, self._clock, self._tracker = settings, clock, tracker
        self._rebalances = Rebalances()
        self._partitions: dict[TopicPartition, SourcePartition] = {}
        self._assigned: set[TopicPartition] = set()  # ours, but not begun: its locks are not restored yet
        self._handovers: list[Handover] = []
        self._fatal: BaseException | None = None
        self._next_commit = 0.0
        consumer.subscribe(topics, self._rebalances)

    def step(self) -> None:
        if self._tracker is not None:
            self._tracker.check()
        self._take_rebalances()
        self._take_over()
        for place, records in self._consumer.poll(timedelta(seconds=self._wait_s())).items():
            if (part := self._partitions.get(place)) is not None:
                part.dispatch(records)
        for part in self._partitions.values():
            part.collect()
        if self._fatal is not None:
            raise self._fatal
        self._answer_handovers()
        self._keep_bounds()
        if self._clock.monotonic() >= self._next_commit:
            self._commit()

    def close(self) -> None:
        """Start nothing more, let running handlers end, commit, leave the group. Bounded by `shutdown_timeout`."""
        deadline = self._clock.monotonic() + self._settings.shutdown_timeout.total_seconds()
        try:
            for part in self._partitions.values():
                part.leave()
            while not all(part.idle for part in self._partitions.values()) and self._clock.monotonic() < deadline:
                # Polling keeps the membership; leaving partitions dispatch to workers that refuse.
                self._consumer.pause(tuple(self._partitions))
                self._consumer.poll(timedelta(seconds=0.02))
            for part in self._partitions.values():
                part.collect()
            self._commit()
        finally:
            self._rebalances.close()
            self._give_up(self._partitions.keys() | self._assigned)
            self._consumer.close()

    # Whose partitions

    def _take_rebalances(self) -> None:
        for event in self._rebalances.take():
            if isinstance(event, Assigned):
                self._assigned |= event.partitions
                for topic, numbers in _by_topic(event.partitions).items():
                    if self._tracker is not None:
                        self._tracker.state.claim(Side.SOURCE, self._tracker.state.topic(topic), numbers)
            elif isinstance(event, Lost):
                for place in event.partitions & self._partitions.keys():
                    self._partitions[place].leave()
                self._give_up(event.partitions)
            else:
                event.deadline = self._clock.monotonic() + self._settings.shutdown_timeout.total_seconds()
                for place in event.partitions & self._partitions.keys():
                    self._partitions[place].leave()
                self._handovers.append(event)

    def _take_over(self) -> None:
        for place in tuple(self._assigned):
            metadata, adopt = "", False
            if self._tracker is not None:
                claim = self._tracker.state.source_claims.get(place)
                if claim is not None and claim.error is not None:
                    raise claim.error
                if claim is None or not claim.ready:
                    continue
                metadata, adopt = claim.metadata, claim.adopt
            position = self._consumer.position(place)
            if position is None or (adopt and not self._adopt(place, Committed(position, metadata))):
                continue
            self._assigned.discard(place)
            self._partitions[place] = SourcePartition(
                place,
                position,
                metadata,
                self._handler,
                self._workers,
                self._clock,
                self._set_fatal,
                whole_batches=self._settings.concurrency == 1,
            )
            self._consumer.resume([place])

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

    def _answer_handovers(self) -> None:
        for handover in tuple(self._handovers):
            parts = [self._partitions[place] for place in handover.partitions & self._partitions.keys()]
            late = handover.deadline is not None and self._clock.monotonic() >= handover.deadline
            if not late and not all(part.idle for part in parts):
                continue
            for part in parts:
                part.collect()
            answer = {part.place: offset for part in parts if (offset := part.to_commit()) is not None}
            self._give_up(handover.partitions)
            handover.answer = answer
            self._handovers.remove(handover)

    def _give_up(self, places: Iterable[TopicPartition]) -> None:
        for topic, numbers in _by_topic(places).items():
            if self._tracker is not None and topic in self._tracker.state.topics:
                self._tracker.state.release(Side.SOURCE, self._tracker.state.topic(topic), numbers)
            for number in numbers:
                self._assigned.discard(TopicPartition(topic, number))
                self._partitions.pop(TopicPartition(topic, number), None)

    # Bounds and commits

    def _wait_s(self) -> float:
        if self._handovers or any(part.full for part in self._partitions.values()):
            return FULL_WAIT_S
        return IDLE_WAIT_S

    def _keep_bounds(self) -> None:
        most, bytes_ = self._settings.max_held_records, self._settings.max_held_bytes
        for place, part in self._partitions.items():
            paused, held = part.paused, part.ledger.open_count
            if not part.full and (paused or held >= most or part.open_bytes >= bytes_):
                part.full = True
                self._consumer.pause([place])
            elif part.full and not paused and held * 2 < most and part.open_bytes * 2 < bytes_:
                part.full = False
                self._consumer.resume([place])

    def _commit(self) -> None:
        self._next_commit = self._clock.monotonic() + COMMIT_EVERY_S
        offsets = {p.place: offset for p in self._partitions.values() if (offset := p.to_commit()) is not None}
        if not offsets:
            return
        try:
            self._consumer.commit(offsets)
        except NotOwnerError as error:
            logger.debug("offsets not committed, a rebalance is under way: {}", error)
        except ClientError as error:
            if not error.retriable:
                raise
            logger.warning("offsets not committed, trying again: {}", error)
        else:
            for place, offset in offsets.items():
                self._partitions[place].committed = offset.next_offset

    def _set_fatal(self, error: BaseException) -> None:
        """On any thread: the loop's next step raises it. The first one counts."""
        if self._fatal is None:
            self._fatal = error


def _by_topic(places: Iterable[TopicPartition]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for place in places:
        found.setdefault(place.topic, []).append(place.partition)
    return found
