"""Your own loop over the source topic, and a RetryManager for the retries (layers 1 and 2).

    python examples/produce.py
    python examples/managed_retry.py

For applications that have a kafka-python consumer already: `process` stands where the handler was called, and the
commit gets its offsets from the tracker. The retries run beside the loop, in threads of the manager.
"""

from __future__ import annotations

import argparse
import itertools
import threading
from datetime import timedelta

from kafka import KafkaConsumer
from kafka.errors import CommitFailedError, RebalanceInProgressError

from kafetrain import (
    ErrorTracker,
    ExponentialBackoff,
    Outcome,
    Record,
    RetryManager,
    Settings,
    get_retry_attempt,
    json_of,
)
from kafetrain.errors import NotTrackedError, PartitionLostError

# A rebalance took the partition meanwhile: its next owner reads the record again.
REBALANCED = (CommitFailedError, RebalanceInProgressError, NotTrackedError, PartitionLostError)


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
        group_id="billing-managed",
        backoff=ExponentialBackoff(initial=timedelta(milliseconds=200)),
    )
    consumer = KafkaConsumer(
        bootstrap_servers=brokers,
        group_id=settings.group_id,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        isolation_level="read_committed",
        consumer_timeout_ms=200,  # the inner loop below ends after so long without a record
    )
    tracker = ErrorTracker(settings)
    manager = RetryManager(tracker, charge)
    listener = tracker.rebalance_listener()  # before start_tracking, so that only assigned partitions are restored
    with tracker, manager:
        tracker.start_tracking(topic)
        manager.start_retry_consumer(topic)
        consumer.subscribe([topic], listener=listener)
        consumer.partitions_for_topic(topic)  # so that it joins once: kafka-python 3.0 may lose a second join
        try:
            while not stop.is_set():
                for record in consumer:
                    try:
                        outcome = tracker.process(record, charge)
                        consumer.commit(tracker.offsets(record))
                    except REBALANCED:
                        continue
                    if outcome is not Outcome.SUCCEEDED:
                        say(f"{record.topic}[{record.partition}]@{record.offset}: {outcome.value}")
                manager.check()  # raises what ended the retries, if something did
        except KeyboardInterrupt:
            pass
        finally:
            consumer.close()


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
