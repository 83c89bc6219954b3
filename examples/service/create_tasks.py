"""Create tasks at a retry service: a reminder in five seconds, and a batch of invoices.

python examples/service/create_tasks.py --url http://127.0.0.1:8080 --webhook http://127.0.0.1:9000
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from kafetrain.service import Client


def task(id: str, webhook: str, message: object, *, delay: float) -> dict[str, Any]:
    return {
        "id": id,
        "source": "shop",
        "client_id": "shop-1",
        "destination_type": "http",
        "destination": {"url": f"{webhook}/hook"},
        "dead_destination": {"url": f"{webhook}/dead"},
        "max_retries": 5,
        "base_delay": delay,
        "message_data": json.dumps(message),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--url", default="http://127.0.0.1:8080", help="the service")
    options.add_argument("--webhook", default="http://127.0.0.1:9000", help="who is to get the messages")
    options.add_argument("--invoices", type=int, default=10)
    options.add_argument("--delay", type=float, default=5.0, help="of the reminder, in seconds")
    given = options.parse_args()

    with Client(given.url) as client:
        # The same id again, after a crash of ours say, is not a second task.
        reminder = client.submit(task("reminder-1", given.webhook, {"remind": "ada"}, delay=given.delay))
        print(f"{reminder.task_id}: {'scheduled' if reminder.status == 201 else 'was there already'}")
        invoices = [
            task(f"invoice-{number}", given.webhook, {"invoice": number}, delay=0.2)
            for number in range(1, given.invoices + 1)
        ]
        results = client.submit_many(invoices)
        print(f"{sum(one.is_stored for one in results)} of {len(invoices)} invoices scheduled")
        for one in results:
            if not one.is_stored:
                print(f"{one.task_id}: {one.error}")


if __name__ == "__main__":
    main()
