"""Your own loops over both topics; kafetrain keeps the locks and nothing else (layer 1).

    python examples/produce.py
    python examples/standalone.py

Two kafka-python consumers and one loop for both: the source topic, and the retry topic. Here a partition of the retry
topic waits for its first record; where that matters, see `managed_retry.py`.
"""

from __future__ import annotations

import argparse
import itertools
import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from datetime import datetime, timedelta, timezone
from typing import Any

from kafka import KafkaConsumer
from kafka.errors import CommitFailedError, RebalanceInProgressError

from kafetrain import ErrorTracker, ExponentialBackoff, Handler, Record, Settings, get_retry_attempt, json_of
from kafetrain.errors import NotTrackedError, PartitionLostError

# A rebalance took the partition meanwhile: its next owner reads the record again.
REBALANCED = (CommitFailedError, RebalanceInProgressError, NotTrackedError, PartitionLostError)


def take(tracker: ErrorTracker, consumer: Any, record: Record, handle: Handler) -> None:
    """What to do with a record, of the source topic or of the retry topic."""
    if tracker.due_at(record) > datetime.now(timezone.utc):
        tracker.defer(consumer, record)  # its partition pauses, and goes on with it when it is due
        return
    if tracker.is_in_retry_chain(record):
        tracker.redirect(record)  # behind an earlier record of its key: no attempt counted
    else:
        try:
            handle(record)
        except Exception as error:
            tracker.redirect(record, error)  # another attempt, or a dead letter
        else:
            tracker.free(record)  # the next of its key may run; nothing to do for a source record
    consumer.commit(tracker.offsets(record))


def consume(tracker: ErrorTracker, consumer: Any, handle: Handler, stop: threading.Event) -> None:
    while not stop.is_set():
        for record in consumer:
            try:
                take(tracker, consumer, record, handle)
            except REBALANCED:
                pass


def subscribed(brokers: str, group: str, topic: str, listener: Any) -> Any:
    consumer = KafkaConsumer(
        bootstrap_servers=brokers,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        isolation_level="read_committed",
        consumer_timeout_ms=200,  # the inner loop above ends after so long without a record
    )
    consumer.subscribe([topic], listener=listener)
    consumer.partitions_for_topic(topic)  # so that it joins once: kafka-python 3.0 may lose a second join
    return consumer


def run(brokers: str, topic: str, count: int | None) -> None:
    numbers, stop = itertools.count(1), threading.Event()

    def charge(record: Record) -> None:
        order = json_of(record)
        name = f"order {order['number']} of {order['customer']}"
        if get_retry_attempt(record) < order["fails"]:
            say(f"{name}: failed, attempt {get_retry_attempt(record) + 1}")
            raise ConnectionError("the payment service does not answer")
        say(f"{name}: charged")
        if next(numbers) == count:
            stop.set()

    settings = Settings(
        bootstrap_servers=brokers,
        group_id="billing-standalone",
        backoff=ExponentialBackoff(initial=timedelta(milliseconds=200)),
    )
    with ErrorTracker(settings) as tracker, ThreadPoolExecutor() as threads:
        listener = tracker.rebalance_listener()  # before start_tracking, so that only assigned partitions are restored
        tracker.start_tracking(topic)
        source = subscribed(brokers, settings.group_id, topic, listener)
        retry = subscribed(brokers, tracker.get_retry_group(), tracker.get_retry_topic(topic), listener)
        loops = [threads.submit(consume, tracker, consumer, charge, stop) for consumer in (source, retry)]
        try:
            wait(loops, return_when=FIRST_EXCEPTION)
        except KeyboardInterrupt:
            pass
        finally:
            stop.set()
            wait(loops)
            source.close()
            retry.close()
        for loop in loops:
            loop.result()  # raises what ended it


def say(text: str) -> None:
    print(f"{text}\n", end="", flush=True)  # one write: lines of several threads do not mix


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brokers", default="localhost:9092")
    parser.add_argument("--topic", default="orders")
    parser.add_argument("--count", type=int, help="end after so many charged orders; else with Ctrl-C")
    args = parser.parse_args()
    run(args.brokers, args.topic, args.count)


if __name__ == "__main__":
    main()
