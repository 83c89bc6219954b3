"""All three layers in one object: what most applications want.

    python examples/produce.py
    python examples/simple_consumer.py

An order that fails is retried while the orders of other customers go on; the next order of the same customer waits.
"""

from __future__ import annotations

import argparse
from datetime import timedelta
from queue import SimpleQueue

from kafetrain import ExponentialBackoff, KafkaConsumer, Record, Settings, get_retry_attempt, json_of

charged: SimpleQueue[int] = SimpleQueue()


def charge(record: Record) -> None:
    """Returning means success, raising means failure. Runs on several threads, one order of a customer at a time."""
    order = json_of(record)
    name = f"order {order['number']} of {order['customer']}"
    if get_retry_attempt(record) < order["fails"]:
        say(f"{name}: failed, attempt {get_retry_attempt(record) + 1}")
        raise ConnectionError("the payment service does not answer")
    say(f"{name}: charged")
    charged.put(order["number"])


def run(brokers: str, topic: str, count: int | None) -> None:
    settings = Settings(
        bootstrap_servers=brokers,
        group_id="billing",
        max_retries=8,
        backoff=ExponentialBackoff(initial=timedelta(milliseconds=200)),
        concurrency=4,
    )
    consumer = KafkaConsumer.resilient(settings, topic, charge)
    if count is None:
        consumer.run()  # until Ctrl-C, SIGTERM, or an error that no retry can help
    else:
        with consumer:  # runs in the background until the block ends
            for _ in range(count):
                charged.get()


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
