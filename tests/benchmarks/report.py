"""What a run of the benchmarks says: on the terminal, and as a page of the documentation that ends in its own data."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console
from rich.table import Table

__all__ = ["Block", "Scale", "percentile", "print_block", "spread", "write_page"]

LIBRARIES = ("kafetrain", "kafka-python", "confluent-kafka", "faststream", "aiokafka")


@dataclass(frozen=True)
class Scale:
    """How much is run. `share`: of the records of each workload."""

    clients: Sequence[str] = ("kafka-python", "confluent")
    pairs: int = 9
    runs: int = 3
    share: float = 1.0

    def of(self, records: int) -> int:
        return max(200, round(records * self.share))


def spread(values: Sequence[float], form: str) -> tuple[str, str, str]:
    """The least, the median and the most of them, in this format."""
    least, middle, most = (format(pick(values), form) for pick in (min, statistics.median, max))
    return least, middle, most


@dataclass(frozen=True)
class Block:
    """One benchmark's table. `workload`: exactly what was run; `data`: every figure, for programs."""

    title: str
    workload: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    data: dict[str, list[float]] = field(default_factory=dict)


def print_block(console: Console, block: Block) -> None:
    table = Table(*block.columns, title=block.title, caption=block.workload)
    for row in block.rows:
        table.add_row(*row)
    console.print(table)


def percentile(ordered: Sequence[float], share: float) -> float:
    """By nearest rank: a value that was measured."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def write_page(path: Path, command: str, blocks: list[Block], broker: str) -> None:
    """Replace the page by what this run found."""
    machine = f"{os.cpu_count()} cores, {cpu_model()}, {platform.system()} {platform.machine()}"
    versions = ", ".join(filter(None, map(_installed, LIBRARIES)))
    lines = [
        "# Benchmarks",
        "",
        "What one run on one machine gave. Absolute figures are that machine's; ratios travel better.",
        "",
        "To measure yours, in the folder of a clone, with the extra `dev` installed:",
        "",
        "```sh",
        command,
        "```",
        "",
        f"{date.today().isoformat()}; {machine}; Python {platform.python_version()}, {versions}; {broker}.",
    ]
    for block in blocks:
        lines += ["", f"## {block.title}", "", block.workload, "", f"| {' | '.join(block.columns)} |"]
        lines += [f"|{' --- |' * len(block.columns)}"]
        lines += [f"| {' | '.join(row)} |" for row in block.rows]
    lines += ["", "## As data", "", "```json", "{"]
    lines += [
        f" {json.dumps(f'{block.title}: {name}')}: {json.dumps([round(value, 2) for value in values])},"
        for block in blocks
        for name, values in block.data.items()
    ]
    lines[-1] = lines[-1].removesuffix(",")
    lines += ["}", "```", ""]
    path.write_text("\n".join(lines))


def _installed(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return ""


def cpu_model() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or "unknown processor"
