"""What kafka-python 3.0 does wrong, put right from outside, all in one place.

Each function names the defect. `tests/contract/test_kafka_python_*_traps.py` shows each one on the bare library and
fails when it is gone, so that the workaround can go too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from kafka import errors as kafka_errors
from kafka.consumer.fetcher import Fetcher
from kafka.coordinator.base import MemberState
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.producer.transaction_manager import TransactionState

from kafetrain.client.kafka_python_refusals import check_files, explained, is_final

__all__ = [
    "REJECTIONS",
    "GroupJoin",
    "abandon",
    "deliver_what_came_before_the_end",
    "high_watermark_fetcher",
    "is_stuck",
    "keep_producer_usable_after_rejections",
    "mend_fetching",
    "net_client_factory",
    "send_nothing_that_has_failed",
]


# Connecting


class _ConnectionManager(KafkaConnectionManager):  # type: ignore[misc]  # kafka-python has no types
    """Keeps the reason why connecting failed, and gives up bootstrapping on a refused login or certificate.

    The library logs the reason, goes on trying, and in the end raises a timeout without it.
    """

    last_failure: BaseException | None = None

    async def _build_transport(self, *args: Any, **kwargs: Any) -> Any:
        transport = await super()._build_transport(*args, **kwargs)
        deliver_what_came_before_the_end(transport)
        return transport

    async def _connect(self, node: Any, conn: Any, *args: Any, **kwargs: Any) -> None:
        await super()._connect(node, conn, *args, **kwargs)
        if conn.init_future.failed():
            self.last_failure = conn.init_future.exception

    def get_connection(self, node_id: Any, *args: Any, **kwargs: Any) -> Any:
        # Only while bootstrapping. Later on a refusal may pass, as when a broker restarts before its user store.
        if self.cluster.is_bootstrap(node_id) and is_final(self.last_failure):
            assert self.last_failure is not None
            raise self.last_failure
        return super().get_connection(node_id, *args, **kwargs)


def deliver_what_came_before_the_end(transport: Any) -> None:
    """Hand on what a broker said before it hung up.

    The library drops what it receives together with the end of the connection: a broker's reason to refuse a login.
    """
    receive = transport._sock_recv

    def receive_in_order() -> tuple[bytes, BaseException | None]:
        data, error = receive()
        return (data, None) if data else (data, error)  # the end is there for the next call as well

    transport._sock_recv = receive_in_order


def net_client_factory(secrets: Mapping[str, Any], bootstrap_timeout_ms: int) -> Callable[..., Any]:
    """For the option `kafka_client`: a network client that has reached a broker, or an error that says why not.

    - A client whose constructor fails to bootstrap leaves its thread and sockets behind; here it is closed.
    - `KafkaAdminClient` logs all its options at DEBUG: passwords take this way instead.
    - `allow_auto_create_topics` and `retry_backoff_ms` never reach the metadata requests.
    """

    def build(**options: Any) -> Any:
        check_files(options)
        options.update(secrets)
        net = NetworkSelector(**options)
        manager = _ConnectionManager(net, **options)
        client = KafkaNetClient(net=net, manager=manager, **options)
        _ask_again_for_topics_left_out(manager.cluster)
        _refresh_again_after_errors(manager.cluster)
        manager.cluster.config["allow_auto_create_topics"] = False
        manager.cluster.config["retry_backoff_ms"] = options.get("retry_backoff_ms", 100)
        try:
            manager.bootstrap(bootstrap_timeout_ms)
        except BaseException as error:
            client.close()
            failure = error
            if isinstance(error, kafka_errors.KafkaTimeoutError) and manager.last_failure is not None:
                failure = manager.last_failure
            raise explained(failure, options) from error
        return client

    return build


def _ask_again_for_topics_left_out(cluster: Any) -> None:
    """Let no answer to an older question pass for the answer to a newer one.

    Topics that are added while a metadata request is under way are not in its answer, which still counts as theirs:
    they stay unknown for `metadata_max_age_ms`. A new group member then gets no partitions for five minutes.
    """
    update_metadata = cluster.update_metadata

    def update_and_compare(answer: Any) -> None:
        update_metadata(answer)
        if cluster._topics - {topic.name for topic in answer.topics}:
            cluster.request_update()

    cluster.update_metadata = update_and_compare


def _refresh_again_after_errors(cluster: Any) -> None:
    """Let whoever asks for metadata start the loop that refreshes it, should that have ended.

    An error that is none of Kafka's ends it (a set of topics that changed while it was looked through), and so does one
    of a refresh that it only waits for. Nobody hears of a new leader then, and listing offsets times out for ever.
    """
    start = cluster.start_refresh_loop

    def start_again() -> None:
        if (loop := cluster._refresh_loop_future) is not None and loop.is_done and not cluster.closed:
            cluster._refresh_loop_future = None
        start()

    cluster.start_refresh_loop = start_again


# Consuming


class _PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]  # kafka-python has no types
    def take(self, n: int | None = None) -> Any:
        try:
            return super().take(n)
        except BaseException:
            # Otherwise these records stay in line, never end and never deliver, and poll() spins for ever.
            self.drain()
            raise


def mend_fetching(consumer: Any) -> None:
    """Keep `poll` from stalling after `resume`, and from spinning after a damaged batch.

    The data of a resumed partition comes back only while the in-line slot is None; a drained slot is falsy but not
    None, and then the partition stalls for good.
    """
    fetcher = consumer._fetcher
    fetched_records = fetcher.fetched_records

    def fetched_records_with_a_free_slot(*args: Any, **kwargs: Any) -> Any:
        if not fetcher._next_partition_records:
            fetcher._next_partition_records = None
        return fetched_records(*args, **kwargs)

    fetcher.fetched_records = fetched_records_with_a_free_slot
    fetcher.PartitionRecords = _PartitionRecords


def high_watermark_fetcher(consumer: Any) -> Any:
    """A fetcher on the consumer's connections that lists high watermarks.

    Under `read_committed`, `KafkaConsumer.end_offsets` gives last stable offsets: below the records of an open
    transaction. The isolation level is the fetcher's; this one only ever lists offsets.
    """
    return Fetcher(
        consumer._client,
        consumer._subscription,
        isolation_level="read_uncommitted",
        request_timeout_ms=consumer.config["request_timeout_ms"],
        retry_backoff_ms=consumer.config["retry_backoff_ms"],
    )


class GroupJoin:
    """Joins the group in the background, so that `poll` returns in time while a listener waits.

    The library bounds every step of a join by the poll's timeout except the listener: with an asynchronous one that
    waits for work in flight, `poll` would block for as long, and the thread that has to finish the work with it.
    """

    def __init__(self, consumer: Any) -> None:
        self._coordinator = consumer._coordinator
        self._manager = consumer._manager
        self._net = consumer._net
        self._task: Any = None
        self._stopped = threading.Event()
        self._join_and_sync = self._coordinator._do_join_and_sync_async
        self._coordinator.ensure_active_group = self._ensure_active_group
        self._coordinator._do_join_and_sync_async = self._join_unless_stopped

    def settle(self, timeout_ms: float) -> bool:
        """Wait for a join under way; False while it is. Until then nothing may be fetched: the assignment changes."""
        return self._task is None or self._wait(timeout_ms)

    def stop(self, timeout_ms: float) -> None:
        """No further request to join. A member that asks again after it has left would hold up the group.

        So would one that has its id and does not join with it: the library leaves only what has joined, and the broker
        waits for the member as long as its session.
        """
        self._stopped.set()
        try:
            self.settle(timeout_ms)
        except Exception:
            pass  # it was cancelled
        coordinator = self._coordinator
        if coordinator.state is MemberState.UNJOINED and coordinator._generation.has_member_id():
            coordinator.state = MemberState.REBALANCING  # now it leaves

    def _ensure_active_group(self, timeout_ms: float | None = None) -> bool:
        if self._task is None:
            self._task = self._manager.call_soon(self._coordinator.ensure_active_group_async)
        return self._wait(timeout_ms)

    def _wait(self, timeout_ms: float | None) -> bool:
        task = self._task
        try:
            self._net.run(self._manager.wait_for, task, timeout_ms)
        except Exception:
            if not task.is_done:  # the wait ended, not the join
                return False
        if not task.is_done:
            return False
        self._task = None
        if task.failed():
            raise task.exception
        return bool(task.value)

    async def _join_unless_stopped(self) -> Any:
        if self._stopped.is_set():
            raise kafka_errors.Cancelled
        return await self._join_and_sync()


# Producing

# The broker has not appended these, and never will.
REJECTIONS = (
    kafka_errors.MessageSizeTooLargeError,
    kafka_errors.RecordListTooLargeError,
    kafka_errors.InvalidTopicError,
    kafka_errors.InvalidTimestampError,
    kafka_errors.InvalidRecordError,
    kafka_errors.TopicAuthorizationFailedError,
    kafka_errors.PolicyViolationError,
    kafka_errors.UnsupportedForMessageFormatError,
    kafka_errors.UnsupportedCompressionTypeError,
)


def keep_producer_usable_after_rejections(producer: Any) -> None:
    """Let a rejected record fail alone.

    The library takes every rejection for fatal: one record that is too large, and that producer fails every other
    record with the same error, for good. Since an idempotent producer here has one batch per partition under way,
    it is enough to take back the rejected batch's sequence numbers.
    """
    transactions = producer._transaction_manager
    classify = transactions.classify_batch_error

    def classify_batch_error(error: Any, batch: Any, log_start_offset: int = -1) -> Any:
        verdict = classify(error, batch, log_start_offset=log_start_offset)
        if verdict == transactions.ERROR_CLASS_FATAL and isinstance(error, REJECTIONS):
            transactions.set_sequence_number(batch.topic_partition, batch.records.base_sequence)
            return transactions.ERROR_CLASS_RETRIABLE  # here: fail this batch, and nothing more
        return verdict

    transactions.classify_batch_error = classify_batch_error


def send_nothing_that_has_failed(producer: Any) -> None:
    """Keep from the broker what has expired in the moment in which it was taken to be sent.

    The library fails the records of such a batch and sends it all the same. A process that was frozen would append
    what it had queued before, behind all that its successor has done meanwhile.
    """
    sender = producer._sender
    create_requests = sender._create_produce_requests
    transactions = producer._transaction_manager

    def create_requests_of_open_batches(batches_by_node: Any) -> Any:
        for batches in batches_by_node.values():
            for batch in [batch for batch in batches if batch.final_state is not None]:
                batches.remove(batch)  # from this list: the answer is told to what is in it
                if transactions is not None:
                    transactions.set_sequence_number(batch.topic_partition, batch.records.base_sequence)
        return create_requests(batches_by_node)

    sender._create_produce_requests = create_requests_of_open_batches


def is_stuck(producer: Any) -> bool:
    """True for a producer that will send nothing any more.

    After a batch has expired that was sent at least once, the library forgets its producer id and never asks for
    another: what is sent later neither succeeds nor fails, not even by its delivery timeout.
    """
    transactions = producer._transaction_manager
    if transactions is None:  # not idempotent
        return False
    if transactions.has_fatal_error():
        return True
    ready = transactions._current_state is TransactionState.READY
    return ready and not transactions.has_producer_id()


def abandon(producer: Any, timeout_s: float) -> bool:
    """End a producer at once, with everything that it has not sent. False: its thread still runs after the timeout.

    `KafkaProducer.close` raises when it cannot flush, and then leaves its thread running.
    """
    producer._unregister_cleanup()
    producer._closed = True
    sender = producer._sender
    sender.force_close()
    if sender is not threading.current_thread():
        sender.join(timeout_s)
    return not sender.is_alive()
