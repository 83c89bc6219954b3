"""Pull style: a for loop instead of a handler.

    python examples/produce.py
    python examples/stream.py

Records come one by one, retries that are due among them. Polling goes on behind the loop, however long it thinks.
"""

from __future__ import annotations

import argparse
from datetime import timedelta

from kafetrain import (
    ErrorHandlingMiddleware,
    ErrorTracker,
    ExponentialBackoff,
    KafkaConsumer,
    Record,
    Settings,
    get_retry_attempt,
    json_of,
)


def charge(record: Record) -> None:
    order = json_of(record)
    name = f"order {order['number']} of {order['customer']}"
    if get_retry_attempt(record) < order["fails"]:
        print(f"{name}: failed, attempt {get_retry_attempt(record) + 1}", flush=True)
        raise ConnectionError("the payment service does not answer")
    print(f"{name}: charged", flush=True)


def run(brokers: str, topic: str, count: int | None) -> None:
    settings = Settings(
        bootstrap_servers=brokers,
        group_id="billing-stream",
        backoff=ExponentialBackoff(initial=timedelta(milliseconds=200)),
    )
    charged = 0
    with ErrorTracker(settings) as tracker:
        tracker.start_tracking(topic)
        consumer = KafkaConsumer(settings).with_middlewares(ErrorHandlingMiddleware(tracker))
        try:
            for record in consumer.stream(topic):
                try:
                    charge(record)
                except ConnectionError as error:
                    consumer.fail(error)  # it is retried later; the loop goes on with another record
                else:
                    charged += 1
                if charged == count:
                    consumer.request_stop()  # ends the loop once this record is complete; `break` would leave it open
        except KeyboardInterrupt:
            pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brokers", default="localhost:9092")
    parser.add_argument("--topic", default="orders")
    parser.add_argument("--count", type=int, help="end after so many charged orders; else with Ctrl-C")
    args = parser.parse_args()
    run(args.brokers, args.topic, args.count)


if __name__ == "__main__":
    main()
