"""Run all benchmarks, or those named, on the tests' own Apache Kafka.

python -m tests.benchmarks [healthy] [lateness] [retries] [--records N] [--pairs N] [--page FILE]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
from pathlib import Path

from rich.console import Console

from kafetrain.testing import kafka_broker
from tests.benchmarks import healthy, lateness, retries
from tests.benchmarks.report import Block, print_block, write_page

NAMES = ("healthy", "lateness", "retries")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], help="which; default: all")
    parser.add_argument("--records", type=int, default=200_000, help="of the healthy path (100 bytes each)")
    parser.add_argument("--pairs", type=int, default=9, help="interleaved pairs of the healthy path")
    parser.add_argument("--keys", type=int, default=200, help="of retry lateness")
    parser.add_argument("--runs", type=int, default=3, help="of each workload of the retry path")
    parser.add_argument("--page", type=Path, help="write what was found to this file, in Markdown")
    args = parser.parse_args()
    names = args.names or NAMES
    console, blocks = Console(), []
    console.print(f"Python {platform.python_version()}, {platform.machine()}")
    with kafka_broker(allow_embedded=False) as broker:
        if "healthy" in names:
            blocks.append(healthy_block(healthy.run(broker, args.records, 100, args.pairs)))
            print_block(console, blocks[-1])
        if "lateness" in names:
            blocks.append(lateness_block(lateness.run(broker, args.keys)))
            print_block(console, blocks[-1])
        if "retries" in names:
            blocks.append(retries_block(retries.run(broker, args.runs)))
            print_block(console, blocks[-1])
        kind = f"Apache Kafka ({broker.kind}) on the same machine"
    if args.page is not None:
        command = " ".join(["python -m tests.benchmarks", *sys.argv[1:]])
        write_page(args.page, command, blocks, kind)


def healthy_block(result: healthy.Healthy) -> Block:
    kinds = (("bare kafka-python loop, records/s", result.bare), ("kafetrain, records/s", result.kafetrain))
    rows = [(name, *(f"{pick(values):,.0f}" for pick in (min, statistics.median, max))) for name, values in kinds]
    rows.append(("ratio of each pair", *(f"{pick(result.ratios):.2f}" for pick in (min, statistics.median, max))))
    workload = (
        f"{result.records:,} records of {result.size_bytes} B in {healthy.PARTITIONS} partitions, a handler that does "
        f"nothing, one handler thread, logging and error handling as middlewares, a commit each second; first handler "
        f"call to last, {len(result.bare)} interleaved pairs."
    )
    data = {"bare": result.bare, "kafetrain": result.kafetrain, "ratios": result.ratios}
    return Block("Nothing fails", workload, ("", "min", "median", "max"), rows, data)


def lateness_block(result: lateness.Lateness) -> Block:
    rows, data = [], {}
    for name, values in (("0.1 s", result.short), ("10 s", result.long)):
        figures = (values[0], lateness.percentile(values, 0.5), lateness.percentile(values, 0.99), values[-1])
        rows.append((name, str(len(values)), *(f"{figure:.1f}" for figure in figures)))
        data[name] = values
    workload = (
        "Each record fails once; half of the keys back off for 0.1 s, the others for 10 s, in one partition. When a "
        "retry starts minus when it was due, in ms."
    )
    columns = ("backoff", "retries", "earliest", "p50", "p99", "latest")
    return Block("Lateness of retries", workload, columns, rows, data)


def retries_block(results: list[retries.Retries]) -> Block:
    rows = [
        (f"{one.keys:,}", f"{one.share:.0%}", *(f"{pick(one.rates):,.0f}" for pick in (min, statistics.median, max)))
        for one in results
    ]
    workload = (
        f"Distinct keys in {retries.PARTITIONS} partitions, one record each of 100 B, a share of which fails once and "
        f"is retried after 1 ms; all records, a second, from the first handler call to the last success."
    )
    data = {f"{one.keys} keys, {one.share:.0%} fail": one.rates for one in results}
    return Block("Records that fail", workload, ("keys", "fail once", "min", "median", "max"), rows, data)


if __name__ == "__main__":
    main()
