"""Create a topic and write sample orders to it, for the other examples to handle.

    python examples/produce.py --orders 20

The key of an order is its customer. Every third order says how often charging it will fail at first, which stands for
a payment service that is down for a while.
"""

from __future__ import annotations

import argparse
import json

from kafka import KafkaAdminClient, KafkaProducer
from kafka.errors import TopicAlreadyExistsError

CUSTOMERS = ("ann", "bob", "cara", "dan")


def create_topic(brokers: str, topic: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=brokers)
    try:
        admin.create_topics({topic: {"num_partitions": 2, "replication_factor": -1}}, wait_for_metadata=True)
        print(f"topic {topic} created")
    except TopicAlreadyExistsError:
        print(f"topic {topic} exists")
    finally:
        admin.close()


def produce(brokers: str, topic: str, count: int) -> None:
    producer = KafkaProducer(bootstrap_servers=brokers, acks="all")
    for number in range(1, count + 1):
        customer = CUSTOMERS[number % len(CUSTOMERS)]
        order = {"number": number, "customer": customer, "fails": 2 if number % 3 == 1 else 0}
        producer.send(topic, key=customer.encode(), value=json.dumps(order).encode())
    producer.flush()
    producer.close()
    print(f"{count} orders of {len(CUSTOMERS)} customers written")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brokers", default="localhost:9092")
    parser.add_argument("--topic", default="orders")
    parser.add_argument("--orders", type=int, default=20, help="how many to write")
    args = parser.parse_args()
    create_topic(args.brokers, args.topic)
    produce(args.brokers, args.topic, args.orders)


if __name__ == "__main__":
    main()
