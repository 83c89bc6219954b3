"""Run all benchmarks but `foreign`, or those named, on the tests' own Apache Kafka.

python -m tests.benchmarks [NAME ...] [--clients NAME ...] [--pairs N] [--runs N] [--share X] [--page FILE]
"""

from __future__ import annotations

import argparse
import gc
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from kafetrain.testing import Broker, kafka_broker
from tests.benchmarks import concurrency, cpu, foreign, healthy, lateness, locks, restore, retries, startup, waiting
from tests.benchmarks.report import Block, Scale, print_block, write_page

BENCHMARKS: dict[str, Callable[[Broker, Scale], Iterator[Block]]] = {
    "healthy": healthy.blocks,
    "foreign": foreign.blocks,
    "retries": retries.blocks,
    "cpu": cpu.blocks,
    "lateness": lateness.blocks,
    "concurrency": concurrency.blocks,
    "restore": restore.blocks,
    "startup": startup.blocks,
    "waiting": waiting.blocks,
    "locks": locks.blocks,
}
ALL = [name for name in BENCHMARKS if name != "foreign"]  # which needs what nothing else here does


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; default: all but foreign"
    )
    parser.add_argument("--clients", nargs="+", choices=Scale.clients, default=Scale.clients)
    parser.add_argument("--pairs", type=int, default=Scale.pairs, help="interleaved pairs of the healthy path")
    parser.add_argument("--runs", type=int, default=Scale.runs, help="of every other workload")
    parser.add_argument("--share", type=float, default=Scale.share, help="of each workload's records")
    parser.add_argument("--page", type=Path, help="write what was found to this file, in Markdown")
    args = parser.parse_args()
    if unknown := [name for name in args.names if name not in BENCHMARKS]:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    scale = Scale(args.clients, args.pairs, args.runs, args.share)
    console, blocks = Console(), []
    console.print(f"Python {platform.python_version()}, {platform.machine()}")
    gc.freeze()  # as `kafetrain run` does
    with kafka_broker(allow_embedded=False) as broker:
        for name in args.names or ALL:
            for block in BENCHMARKS[name](broker, scale):
                print_block(console, block)
                blocks.append(block)
        kind = f"Apache Kafka ({broker.kind}) on the same machine"
    if args.page is not None:
        command = " ".join(["python -m tests.benchmarks", *sys.argv[1:]])
        write_page(args.page, command, blocks, kind)


if __name__ == "__main__":
    main()
