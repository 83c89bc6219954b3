"""The healthy path: nothing fails. Layer 3 with its middleware against a bare loop of the same client, side by side.

Both read the same topic from its beginning, call a handler for each record and commit each second. What is timed is
from the first handler call to the last. Pairs are interleaved, and each gives one ratio: machines drift.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kafetrain import LoggingMiddleware
from kafetrain.testing import Broker
from tests.benchmarks.bare import run_bare
from tests.benchmarks.counter import Counter
from tests.benchmarks.filling import fill
from tests.benchmarks.ours import handle_all, settings_for
from tests.benchmarks.report import Block, Scale, spread

__all__ = ["Healthy", "blocks", "measure"]

PARTITIONS = 4
SIZES = ((500_000, 100), (100_000, 1_000))
"""Records, and the bytes of each."""


@dataclass(frozen=True)
class Healthy:
    """Records a second and microseconds of CPU a record, of each run."""

    bare: list[Counter]
    ours: list[Counter]

    @property
    def ratios(self) -> list[float]:
        """Of each pair: our rate by theirs."""
        return [ours.rate / bare.rate for ours, bare in zip(self.ours, self.bare, strict=True)]

    @property
    def cpu_ratios(self) -> list[float]:
        """Of each pair: their CPU by ours. What the machine does beside hardly moves it."""
        return [bare.cpu_us / ours.cpu_us for ours, bare in zip(self.ours, self.bare, strict=True)]


def blocks(broker: Broker, scale: Scale) -> Iterator[Block]:
    for client in scale.clients:
        for count, size in SIZES:
            records = scale.of(count)
            found = measure(broker, client, records, size, scale.pairs)
            rows: list[tuple[str, ...]] = [
                ("bare loop, records/s", *spread([one.rate for one in found.bare], ",.0f")),
                ("kafetrain, records/s", *spread([one.rate for one in found.ours], ",.0f")),
                ("ratio of each pair", *spread(found.ratios, ".2f")),
                ("bare loop, µs of CPU a record", *spread([one.cpu_us for one in found.bare], ".2f")),
                ("kafetrain, µs of CPU a record", *spread([one.cpu_us for one in found.ours], ".2f")),
            ]
            yield Block(
                f"Nothing fails, {size:,} B, {client}",
                f"{records:,} records of {size:,} B in {PARTITIONS} partitions, a handler that does nothing, one "
                f"handler thread, logging and error handling as middlewares, a commit each second, against a loop of "
                f"{client} that polls 500 records at a time; first handler call to last, {scale.pairs} interleaved "
                f"pairs.",
                ("", "min", "median", "max"),
                rows,
                {
                    "bare": [one.rate for one in found.bare],
                    "kafetrain": [one.rate for one in found.ours],
                    "ratios": found.ratios,
                },
            )


def measure(broker: Broker, client: str, records: int, size_bytes: int, pairs: int) -> Healthy:
    """Both sides in turn, the one that begins changing from pair to pair; one run of each before, to warm up."""
    topic = broker.create_unique_topic(PARTITIONS, prefix="healthy")
    fill(broker, topic, records, size_bytes, PARTITIONS)
    found = Healthy([], [])
    sides = [(found.bare, run_bare), (found.ours, run_kafetrain)]
    for _, run in sides:
        run(broker, topic, records, client)
    for pair in range(pairs):
        for runs, run in sides if pair % 2 == 0 else reversed(sides):
            runs.append(run(broker, topic, records, client))
    return found


def run_kafetrain(broker: Broker, topic: str, records: int, client: str) -> Counter:
    return handle_all(settings_for(broker, client), topic, records, [LoggingMiddleware()])
