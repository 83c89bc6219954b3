"""What docs/pages/guarantees.md says is held by a test is held by one that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "pages" / "guarantees.md"


@pytest.mark.parametrize(("table", "at_least"), [("promise", 7), ("failure", 28)])
def test_every_line_of_a_table_names_tests_that_exist(table: str, at_least: int) -> None:
    _, rest = PAGE.read_text().split(f"| {table} |", 1)
    lines = [line for line in rest.split("\n\n", 1)[0].splitlines()[2:] if line]
    assert len(lines) >= at_least
    for line in lines:
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", line)
        assert named, f"no test holds: {line[:60]}"
        assert [name for path, name in named if not is_test(TESTS / path, name)] == []


def is_test(path: Path, name: str) -> bool:
    return re.search(rf"^ *def {name}\(", path.read_text(), re.MULTILINE) is not None
