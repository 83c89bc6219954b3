"""The three layers put together by hand, with middlewares.

    python examples/produce.py
    python examples/error_tracker.py

It does what `simple_consumer.py` does, for applications that want to hold each part: to look at the locks, to put
middlewares outside of the error handling, to start and stop the retries on their own.
"""

from __future__ import annotations

import argparse
import itertools
import time
from datetime import timedelta

from kafetrain import (
    ErrorHandlingMiddleware,
    ErrorTracker,
    ExponentialBackoff,
    Handler,
    KafkaConsumer,
    LoggingMiddleware,
    Outcome,
    Record,
    RetryManager,
    Settings,
    get_retry_attempt,
    json_of,
)


def timing(record: Record, call_next: Handler) -> object:
    """A middleware: something before and after the handler. Around the error handling, it sees outcomes."""
    started = time.perf_counter()
    result = call_next(record)
    if isinstance(result, Outcome) and result is not Outcome.SUCCEEDED:
        milliseconds = (time.perf_counter() - started) * 1000
        say(f"{record.topic}[{record.partition}]@{record.offset}: {result.value} in {milliseconds:.1f} ms")
    return result


def run(brokers: str, topic: str, count: int | None) -> None:
    numbers = itertools.count(1)

    def charge(record: Record) -> None:
        order = json_of(record)
        name = f"order {order['number']} of {order['customer']}"
        if get_retry_attempt(record) < order["fails"]:
            say(f"{name}: failed, attempt {get_retry_attempt(record) + 1}")
            raise ConnectionError("the payment service does not answer")
        say(f"{name}: charged")
        if next(numbers) == count:
            consumer.request_stop()  # asks only, so a handler may call it

    settings = Settings(
        bootstrap_servers=brokers,
        group_id="billing-by-hand",
        backoff=ExponentialBackoff(initial=timedelta(milliseconds=200)),
    )
    tracker = ErrorTracker(settings)
    manager = RetryManager(tracker, charge, on_fatal=lambda error: consumer.request_stop())
    consumer = KafkaConsumer(settings)
    consumer.with_middlewares(timing, LoggingMiddleware(), ErrorHandlingMiddleware(tracker))
    with tracker, manager:  # left in the opposite order: the manager stops, and raises what ended it
        tracker.start_tracking(topic)
        manager.start_retry_consumer(topic)
        consumer.consume(topic, charge)  # until request_stop, Ctrl-C or SIGTERM
        for lock in tracker.locks(topic):
            say(f"in retry: {lock.key!r}, {lock.pending} records, attempt {lock.attempt}, due {lock.due:%X}")


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
