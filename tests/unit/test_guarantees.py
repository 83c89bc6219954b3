"""What docs/pages/guarantees.md says is held by a test is held by one that exists."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "pages" / "guarantees.md"


def test_every_promise_names_tests_that_exist() -> None:
    _, table = PAGE.read_text().split("| promise |", 1)
    lines = [line for line in table.split("\n\n", 1)[0].splitlines()[2:] if line]
    assert len(lines) >= 7
    for line in lines:
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", line)
        assert named, f"no test holds: {line[:60]}"
        assert [name for path, name in named if f"\ndef {name}(" not in (TESTS / path).read_text()] == []
