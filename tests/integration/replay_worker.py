"""A consumer that notes each value that it handled in a file, as a process that a test may kill.

python -m tests.integration.replay_worker SERVERS GROUP TOPIC FILE
"""

from __future__ import annotations

import os
import sys

from kafetrain import KafkaConsumer, Record, Settings


def main(servers: str, group: str, topic: str, path: str) -> None:
    handled = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(record: Record) -> None:
        os.write(handled, record.value + b"\n")

    options = {"session_timeout_ms": 6_000}
    settings = Settings(bootstrap_servers=servers, group_id=group, max_retries=0, client_options=options)
    KafkaConsumer.resilient(settings, topic, note).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
