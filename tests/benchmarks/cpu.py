"""Where the CPU of a redirect goes: what each thread takes while keys fail once and are retried at once.

Read from the threads' own clocks, so that nothing is slowed by the looking.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from kafetrain import Record
from kafetrain.testing import Broker
from tests.benchmarks.report import Block, Scale, spread
from tests.benchmarks.retries import FailsOnce, Workload, once

__all__ = ["blocks"]

WORKLOAD = Workload(4_000, 1.0)
PARTS = {
    "kafetrain-handler": "first runs, and the writing of locks",
    "kafetrain-writes": "acknowledgements, and the writing of retry records",
    "kafetrain-retry-handler": "retries",
    "kafetrain-retry-": "the retry loop: reading, scheduling, tombstones",
    "kafetrain-redirects": "reading the locks",
    "kafetrain-retries-": "the source loop",
    "kafetrain-librdkafka": "the client's thread of a consumer",
    "kafetrain-producer": "the client's thread of the producer",
    "kafka-io": "the client's thread of the consumers",
    "kafka-python-producer": "the client's thread of the producer",
}
"""By how the thread's name begins; the first that matches."""

REST = "all else, and threads that are not Python's"


class Clocked(FailsOnce):
    """Knows what each thread has taken from the first handler call to the last."""

    def __init__(self, records: int, share: float) -> None:
        super().__init__(records, share)
        self._before: dict[str, float] = {}
        self.seconds: dict[str, float] = {}

    def __call__(self, record: Record) -> None:
        if self.first == 0.0:
            self._before = taken()
        super().__call__(record)
        if self.done.is_set():
            self.seconds = {what: seconds - self._before.get(what, 0.0) for what, seconds in taken().items()}


def taken() -> dict[str, float]:
    """Seconds of CPU of this process so far, by what they were for."""
    total, found = time.process_time(), dict.fromkeys((*PARTS.values(), REST), 0.0)
    for thread in threading.enumerate():
        what = next((what for name, what in PARTS.items() if thread.name.startswith(name)), None)
        if what is not None and thread.ident is not None:
            found[what] += time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
    found[REST] = total - sum(found.values())
    return found


def blocks(broker: Broker, scale: Scale) -> Iterator[Block]:
    keys = scale.of(WORKLOAD.keys)
    for client in scale.clients:
        runs: list[dict[str, float]] = []
        for _ in range(scale.runs):
            handler = Clocked(keys, WORKLOAD.share)
            once(broker, keys, WORKLOAD, client, handler)
            runs.append(handler.seconds)
        rows: list[tuple[str, ...]] = []
        data: dict[str, list[float]] = {}
        for what in sorted(runs[0], key=lambda what: -sum(run[what] for run in runs)):
            each = [1e6 * run[what] / keys for run in runs]
            if max(each) >= 0.5:  # the other client's threads take nothing
                data[what] = each
                rows.append((what, *spread(each, ",.0f")))
        rows.append(("all", *spread([1e6 * sum(run.values()) / keys for run in runs], ",.0f")))
        yield Block(
            f"CPU of a redirect, {client}",
            f"{keys:,} distinct keys in 4 partitions, each of which fails once and is retried after 1 ms: microseconds "
            f"of CPU a key, by what the thread is for. Python runs one of them at a time.",
            ("thread", "min", "median", "max"),
            rows,
            data,
        )
