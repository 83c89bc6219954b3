"""One key with very many records behind a failed one: what they take in memory, and whom they delay.

The topics are written as they would be after all of them were redirected. What is weighed is a process of its own.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from kafetrain import ErrorTracker, KafkaConsumer, Record, RetriableError, Settings, get_retry_attempt
from kafetrain.core.entry import Entry, encode_entry
from kafetrain.core.headers import retry_headers
from kafetrain.record import MessageId
from kafetrain.testing import Broker
from tests.benchmarks.filling import Written, fill, write
from tests.benchmarks.lateness import SHORT, late_ms, lateness_row, produce_slowly
from tests.benchmarks.ours import handle_all, settings_for
from tests.benchmarks.report import Block, Scale
from tests.waiting import wait_for

__all__ = ["blocks"]

RECORDS, OTHERS = 1_000_000, 200
NOW_MS = time.time_ns() // 1_000_000
HOUR_MS = 3_600_000
KEY, VALUE = b"busy", b"x" * 100


def blocks(broker: Broker, scale: Scale) -> Iterator[Block]:
    rows: list[tuple[str, ...]] = []
    data: dict[str, list[float]] = {}
    records = scale.of(RECORDS)
    for client in scale.clients:
        topic, settings = broker.create_unique_topic(1, prefix="waiting"), settings_for(broker, client)
        prepare(broker, settings, topic, records)
        command = [sys.executable, "-m", "tests.benchmarks.waiting", broker.bootstrap_servers, client]
        found = json.loads(subprocess.check_output([*command, settings.group_id, topic, str(records)]))
        rows.append((client, f"{found['bytes']:.0f}", *lateness_row("", found["late"])[2:]))
        data |= {f"{client}: bytes": [found["bytes"]], f"{client}: lateness": found["late"]}
    yield Block(
        "One key with much behind it",
        f"{records:,} records of 100 B of one key, the first of which has failed and is due in an hour: what a process "
        f"that has started on them holds in memory for each (growth of its resident size, locks included), and how "
        f"late the retries of {OTHERS} other keys of the same retry partition start, in ms.",
        ("client", "bytes each", "earliest", "p50", "p99", "latest"),
        rows,
        data,
    )


def prepare(broker: Broker, settings: Settings, topic: str, records: int) -> None:
    """The source topic is committed to its end; its records are in the redirect and in the retry topic."""
    fill(broker, topic, records, 1, 1, keys=1)
    handle_all(settings, topic, records)
    write(broker, f"redirect-{topic}", (_entry(settings.group_id, topic, number) for number in range(records)))
    write(broker, f"retry-{topic}", (_retry_record(settings.group_id, topic, number) for number in range(records)))


def _state(number: int) -> Entry:
    waiting = Entry(KEY, due_ms=NOW_MS, log_offset=number)
    if number:
        return waiting
    return waiting.failed(due_ms=NOW_MS + HOUR_MS, now_ms=NOW_MS, error_type="TimeoutError", error="no answer")


def _entry(group: str, topic: str, number: int) -> Written:
    return Written(0, str(MessageId(group, topic, 0, number)).encode(), encode_entry(_state(number)))


def _retry_record(group: str, topic: str, number: int) -> Written:
    id = MessageId(group, topic, 0, number)
    headers = retry_headers(
        id, (), timestamp_ms=NOW_MS, entry=_state(number), max_retries=5, lock_offset=number, nulls_as_empty=False
    )
    return Written(0, KEY, VALUE, headers)


def main(servers: str, client: str, group: str, topic: str, records: int) -> None:
    """The process that is weighed. Prints what it found, as JSON."""
    late: list[float] = []
    done = threading.Event()

    def handler(record: Record) -> None:
        if record.key == KEY:
            raise AssertionError("it is not due")
        if get_retry_attempt(record) == 0:
            raise RetriableError("the first time fails", delay=SHORT)
        late.append(late_ms(record))
        if len(late) == OTHERS:
            done.set()

    settings = Settings(bootstrap_servers=servers, group_id=group, client=client)
    before = _resident_bytes()
    with KafkaConsumer.resilient(settings, topic, handler) as consumer:
        wait_for("locks are restored", lambda: list(consumer.tracker.locks(topic)), 600, check=consumer.check)
        produce_slowly(servers, topic, [b"first"])
        wait_for("what waits has been read", lambda: late, 600, check=consumer.check)
        late.clear()
        produce_slowly(servers, topic, [b"other-%d" % i for i in range(OTHERS)])
        wait_for("the others are done", done.is_set, 600, check=consumer.check)
        wait_for("only what waits is locked", lambda: locked(consumer.tracker, topic) == records, check=consumer.check)
        after = _resident_bytes()
    print(json.dumps({"bytes": (after - before) / records, "late": sorted(late)}))


def locked(tracker: ErrorTracker, topic: str) -> int:
    return sum(lock.pending for lock in tracker.locks(topic))


def _resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    servers, client, group, topic, records = sys.argv[1:]
    main(servers, client, group, topic, int(records))
