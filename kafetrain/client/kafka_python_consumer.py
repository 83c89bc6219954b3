"""The consumer port on kafka-python's `KafkaConsumer`."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

from kafka import TopicPartition as KafkaTopicPartition
from kafka import errors as kafka_errors
from kafka.admin import OffsetSpec
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.structs import OffsetAndMetadata
from loguru import logger

from kafetrain.client.kafka_python_errors import client_error, is_retriable
from kafetrain.client.kafka_python_workarounds import GroupJoin, high_watermark_fetcher, mend_fetching
from kafetrain.client.ports import ClientError, Committed, NotOwnerError, RebalanceEvents
from kafetrain.record import Record, TopicPartition

__all__ = ["KafkaPythonConsumer"]

COMMIT_TIMEOUT_MS = 5_000
LIST_OFFSETS_TIMEOUT_MS = 10_000
CLOSE_TIMEOUT_MS = 5_000
"""What `close` waits at most for work in flight and a last commit."""

LEAVE_TIMEOUT_MS = 1_000

TOPICS_TIMEOUT_MS = 2_000
"""What `subscribe` waits at most until the topics are known."""

ASK_AGAIN_AFTER_S = 0.005
RETRY_AFTER_S = 0.05


class KafkaPythonConsumer:
    """A `ConsumerPort`. Its requests and the `RebalanceEvents` run on an I/O thread of the client.

    A rebalance goes on in the background: while `revoking` waits for work in flight, heartbeats go on, `poll`
    returns nothing within its timeout, and `commit` works. That wait ends when the group gives this member up: at
    the latest `max_poll_interval_ms` after the last `poll` before the rebalance; the partitions are `lost` then.
    """

    def __init__(self, consumer: Any, group: str | None) -> None:
        self._consumer = consumer
        self._name = "the reader" if group is None else f"group {group}"
        self._subscription = consumer._subscription
        self._closing = threading.Event()
        self._close_deadline = float("inf")
        self._leaving: frozenset[TopicPartition] = frozenset()
        self._none_leaving = threading.Event()
        self._none_leaving.set()
        self._watermarks = high_watermark_fetcher(consumer)
        mend_fetching(consumer)
        self._join = GroupJoin(consumer)

    def subscribe(self, topics: Collection[str], events: RebalanceEvents) -> None:
        self._consumer.subscribe(topics=sorted(topics), listener=_Listener(self, events))
        # A member that joins before it knows its topics' partitions joins again when it does, and the group with it.
        deadline, cluster = time.monotonic() + TOPICS_TIMEOUT_MS / 1000, self._consumer._cluster
        while time.monotonic() < deadline and not all(map(cluster.partitions_for_topic, topics)):
            self._closing.wait(ASK_AGAIN_AFTER_S)

    def assign(self, positions: Mapping[TopicPartition, int | None]) -> None:
        read_already = self._consumer.assignment()
        self._consumer.assign([_theirs(partition) for partition in positions])
        for partition, next_offset in positions.items():
            if next_offset is not None:
                self._consumer.seek(_theirs(partition), next_offset)
            elif partition not in read_already:
                self._consumer.seek_to_beginning(_theirs(partition))

    def poll(self, timeout: timedelta, max_records: int = 500) -> Mapping[TopicPartition, Sequence[Record]]:
        deadline = time.monotonic() + timeout.total_seconds()
        try:
            if self._closing.is_set() or not self._join.settle(_ms_until(deadline)):
                return {}
            batches = self._consumer.poll(timeout_ms=_ms_until(deadline), max_records=max_records)
            if hidden := self._consumer._cluster.unauthorized_topics:
                # The library raises this where nobody hears it, and then polls for nothing, for ever.
                raise kafka_errors.TopicAuthorizationFailedError(", ".join(sorted(hidden)))
        except Exception as error:
            if self._closing.is_set():
                return {}
            if not is_retriable(error):
                raise client_error(error, f"polling for {self._name}") from error
            logger.debug("polling for {} will go on: {}", self._name, error)
            self._closing.wait(max(0.0, deadline - time.monotonic()))
            return {}
        return {TopicPartition(*place): records for place, records in batches.items()}

    def position(self, partition: TopicPartition) -> int | None:
        # Not KafkaConsumer.position, which asks the brokers for what is not known, without a bound.
        state = self._subscription.assignment.get(_theirs(partition))
        position = None if state is None else state.position
        return None if position is None else int(position.offset)

    def seek(self, partition: TopicPartition, next_offset: int) -> None:
        try:
            self._consumer.seek(_theirs(partition), next_offset)
        except (ValueError, KeyError) as error:
            if next_offset < 0:
                raise
            raise NotOwnerError(f"{_name(partition)} is not assigned to {self._name}") from error

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self._set_paused(partitions, self._consumer.pause)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        self._set_paused(partitions, self._consumer.resume)

    def commit(self, next_offsets: Mapping[TopicPartition, Committed]) -> None:
        if not next_offsets:
            return
        # The broker checks that we are a member, not that the partition is ours: a late commit would move the new
        # owner's offset.
        if strange := next_offsets.keys() - self._subscription.assigned_partitions() - self._leaving:
            names = ", ".join(_name(partition) for partition in sorted(strange))
            raise NotOwnerError(f"not committed: {names} went to another member of {self._name}")
        try:
            self._consumer.commit(_their_offsets(next_offsets), timeout_ms=COMMIT_TIMEOUT_MS)
        except Exception as error:
            raise client_error(error, f"committing for {self._name}") from error

    def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return self._list_offsets(partitions, OffsetSpec.LATEST)

    def beginning_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        return self._list_offsets(partitions, OffsetSpec.EARLIEST)

    def membership(self) -> Any:
        """The library's group metadata, for its transactions. Any thread. `NotOwnerError`: no member at the moment."""
        found = self._consumer.group_metadata()
        # Without these two a broker takes any transaction: that is how clients work that know no groups.
        if found.generation_id < 0 or not found.member_id:
            raise NotOwnerError(f"this is no member of {self._name} at the moment")
        return found

    def close(self) -> None:
        if self._closing.is_set():
            return
        self._close_deadline = time.monotonic() + CLOSE_TIMEOUT_MS / 1000
        self._closing.set()
        self._join.stop(LEAVE_TIMEOUT_MS)
        # A rebalance may be waiting for work in flight; what it commits must arrive before we leave.
        self._none_leaving.wait((CLOSE_TIMEOUT_MS + LEAVE_TIMEOUT_MS) / 1000)
        try:
            self._consumer.close(autocommit=False, timeout_ms=LEAVE_TIMEOUT_MS)
        except Exception as error:
            logger.warning("closing the consumer of {}: {}", self._name, error)
        finally:
            self._consumer._client.close()  # KafkaConsumer.close leaves it open when it raises; twice is fine

    def _set_paused(self, partitions: Collection[TopicPartition], change: Any) -> None:
        for partition in partitions:
            try:
                change(_theirs(partition))
            except KeyError:
                pass  # no longer assigned; it will be paused when it comes back

    def _list_offsets(self, partitions: Collection[TopicPartition], spec: Any) -> Mapping[TopicPartition, int]:
        deadline = time.monotonic() + LIST_OFFSETS_TIMEOUT_MS / 1000
        found: dict[TopicPartition, int] = {}
        # The library leaves out partitions whose leader it does not know yet.
        while missing := sorted(set(partitions) - found.keys()):
            asked = {_theirs(partition): spec for partition in missing}
            try:
                answers = self._watermarks.offsets_by_times(asked, timeout_ms=_ms_until(deadline))
            except Exception as error:
                names = ", ".join(_name(partition) for partition in missing)
                raise client_error(error, f"listing offsets of {names}") from error
            found.update({TopicPartition(*p): int(answer.offset) for p, answer in answers.items() if answer})
            is_complete = len(found) == len(set(partitions))
            if not is_complete and (time.monotonic() > deadline or self._closing.wait(RETRY_AFTER_S)):
                names = ", ".join(_name(partition) for partition in missing)
                raise ClientError(f"listing offsets: no leader tells those of {names}", retriable=True)
        return found

    # On the client's I/O thread

    async def let_go(self, partitions: frozenset[TopicPartition], events: RebalanceEvents) -> None:
        """Wait until the owner has nothing in flight for these, commit what it says, and forget them."""
        self._leaving |= partitions
        self._none_leaving.clear()
        try:
            next_offsets = await self._ask(partitions, events)
            if next_offsets:
                timeout_ms = min(COMMIT_TIMEOUT_MS, max(RETRY_AFTER_S * 1000, _ms_until(self._close_deadline)))
                # Not commit_async, whose future ends before the request is sent when the coordinator has moved.
                await self._consumer._coordinator._commit_offsets_sync_async(_their_offsets(next_offsets), timeout_ms)
        except Exception as error:
            logger.warning("what {} completed last is not committed and will run again: {}", self._name, error)
        finally:
            # Left alone, a partition that comes back goes on at its old position, not at the committed offset: what
            # was delivered and not completed would be skipped.
            kept = self._subscription.assigned_partitions() - partitions
            self._subscription.assign_from_subscribed(sorted(kept))
            self._leaving -= partitions
            self._none_leaving.set()

    async def _ask(
        self, partitions: frozenset[TopicPartition], events: RebalanceEvents
    ) -> Mapping[TopicPartition, Committed] | None:
        net, coordinator = self._consumer._net, self._consumer._coordinator
        answer = events.revoking(partitions)
        while (next_offsets := answer()) is None:
            if coordinator._generation.is_lost():
                events.lost(partitions)
                return None
            if self._closing.is_set() and time.monotonic() > self._close_deadline:
                logger.warning("{} closes with work in flight, which will run again", self._name)
                return None
            await net.sleep(ASK_AGAIN_AFTER_S)
        return next_offsets


class _Listener(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    """Raises nothing: `poll` would raise it, and a failed `revoked` would come again with every poll."""

    def __init__(self, owner: KafkaPythonConsumer, events: RebalanceEvents) -> None:
        self._owner, self._events = owner, events

    async def on_partitions_assigned(self, assigned: Any) -> None:
        if partitions := _ours(assigned):
            self._owner.pause(partitions)  # before the owner knows of them, so that its resume comes later
            self._tell(self._events.assigned, partitions)

    async def on_partitions_revoked(self, revoked: Any) -> None:
        if partitions := _ours(revoked):
            await self._owner.let_go(partitions, self._events)

    async def on_partitions_lost(self, lost: Any) -> None:
        if partitions := _ours(lost):
            self._tell(self._events.lost, partitions)

    def _tell(self, event: Any, partitions: frozenset[TopicPartition]) -> None:
        try:
            event(partitions)
        except Exception:
            logger.exception("the owner of a consumer failed in a rebalance")


def _ms_until(deadline: float) -> float:
    return max(0.0, (deadline - time.monotonic()) * 1000)


def _theirs(partition: TopicPartition) -> Any:
    return KafkaTopicPartition(*partition)


def _ours(partitions: Any) -> frozenset[TopicPartition]:
    return frozenset(TopicPartition(*partition) for partition in partitions)


def _their_offsets(next_offsets: Mapping[TopicPartition, Committed]) -> dict[Any, Any]:
    # The leader epoch stays -1: with one, brokers refuse offsets of a leader they no longer know.
    return {
        _theirs(partition): OffsetAndMetadata(committed.next_offset, committed.metadata, -1)
        for partition, committed in next_offsets.items()
    }


def _name(partition: TopicPartition) -> str:
    return f"{partition.topic}[{partition.partition}]"
