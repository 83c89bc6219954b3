"""Run all benchmarks, or those named, on the tests' own Apache Kafka.

python -m tests.benchmarks [healthy] [lateness] [--records N] [--pairs N]
"""

from __future__ import annotations

import argparse
import platform
import statistics

from rich.console import Console
from rich.table import Table

from kafetrain.testing import kafka_broker
from tests.benchmarks import healthy, lateness


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=["healthy", "lateness", []], help="which; default: all")
    parser.add_argument("--records", type=int, default=200_000, help="of the healthy path (100 bytes each)")
    parser.add_argument("--pairs", type=int, default=9, help="interleaved pairs of the healthy path")
    parser.add_argument("--keys", type=int, default=200, help="of retry lateness")
    args = parser.parse_args()
    names = args.names or ["healthy", "lateness"]
    console = Console()
    console.print(f"Python {platform.python_version()}, {platform.machine()}")
    with kafka_broker(allow_embedded=False) as broker:
        if "healthy" in names:
            print_healthy(console, healthy.run(broker, args.records, 100, args.pairs))
        if "lateness" in names:
            print_lateness(console, lateness.run(broker, args.keys))


def print_healthy(console: Console, result: healthy.Healthy) -> None:
    title = f"Healthy path: {result.records:,} records of {result.size_bytes} B, nothing fails, 1 handler thread"
    table = Table("", "min", "median", "max", title=title)
    for name, values in (
        ("bare kafka-python loop, records/s", result.bare),
        ("kafetrain, records/s", result.kafetrain),
    ):
        table.add_row(name, *(f"{pick(values):,.0f}" for pick in (min, statistics.median, max)))
    table.add_row("ratio of each pair", *(f"{pick(result.ratios):.3f}" for pick in (min, statistics.median, max)))
    console.print(table)


def print_lateness(console: Console, result: lateness.Lateness) -> None:
    table = Table("backoff", "retries", "earliest", "p50", "p99", "max", title="Retry lateness, ms after the due time")
    for name, values in (("0.1 s", result.short), ("10 s", result.long)):
        figures = (values[0], lateness.percentile(values, 0.5), lateness.percentile(values, 0.99), values[-1])
        table.add_row(name, str(len(values)), *(f"{figure:.1f}" for figure in figures))
    console.print(table)


if __name__ == "__main__":
    main()
