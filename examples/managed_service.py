"""A service: a consumer that can be switched, a producer, and one end for both.

    python examples/produce.py
    python examples/managed_service.py

While it runs, another thread (a health check, a configuration watch, an HTTP handler) may switch consumers and ask how
they are: see `switch_off` and `report`.
"""

from __future__ import annotations

import argparse
import threading
from queue import SimpleQueue

from kafetrain import Record, get_retry_attempt, json_of
from kafetrain.managed import ConsumerConfig, ManagedProducer, ProducerConfig, Registry

charged: SimpleQueue[int] = SimpleQueue()


class Billing:
    """A consumer is an object with a `config` and a `handle`."""

    def __init__(self, brokers: str, topic: str, invoices: ManagedProducer | None) -> None:
        self.config = ConsumerConfig(
            job_name="billing",
            topic=topic,
            group_id="billing-service",
            bootstrap_servers=brokers,
            initial_offset="earliest",
            concurrency=4,
            retry={"max_retries": 8, "backoff": {"policy": "exponential", "initial": "200ms"}},
        )
        self._invoices = invoices

    def handle(self, record: Record) -> None:
        order = json_of(record)
        name = f"order {order['number']} of {order['customer']}"
        if get_retry_attempt(record) < order["fails"]:
            say(f"{name}: failed, attempt {get_retry_attempt(record) + 1}")
            raise ConnectionError("the payment service does not answer")
        if self._invoices is not None:
            self._invoices.send("invoices", order["customer"], f"invoice for order {order['number']}")
        say(f"{name}: charged")
        charged.put(order["number"])


def switch_off(registry: Registry) -> None:
    """At any time, from any thread: it finishes what runs, commits, and leaves its group."""
    registry.set_consumer_switch("billing", False)


def report(registry: Registry) -> str:
    status = registry.status("billing")  # asks the brokers, for the lag
    return f"{status.job_name} is {status.state.value} since {status.since:%H:%M}, lag {dict(status.lag)}"


def run(brokers: str, topic: str, count: int | None, with_invoices: bool) -> None:
    registry = Registry()
    invoices = None
    if with_invoices:
        invoices = registry.register_producer(ProducerConfig(bootstrap_servers=brokers, compression="gzip"))
    registry.register_consumer(Billing(brokers, topic, invoices))
    if count is not None:
        threading.Thread(target=stop_after, args=(registry, count), daemon=True).start()
    registry.run()  # until stop(), Ctrl-C or SIGTERM; then everything ends in order


def stop_after(registry: Registry, count: int) -> None:
    for _ in range(count):
        charged.get()
    registry.stop()


def say(text: str) -> None:
    print(f"{text}\n", end="", flush=True)  # one write: lines of several threads do not mix


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brokers", default="localhost:9092")
    parser.add_argument("--topic", default="orders")
    parser.add_argument("--count", type=int, help="end after so many charged orders; else with Ctrl-C")
    parser.add_argument("--with-invoices", action="store_true", help="send an invoice to the topic invoices")
    args = parser.parse_args()
    run(args.brokers, args.topic, args.count, args.with_invoices)


if __name__ == "__main__":
    main()
