"""The tables of docs/pages/security.md, as the rights that they name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from tests.integration.security.secured import Resource, Right

__all__ = ["Row", "here", "rows"]

PAGE = Path(__file__).parents[3] / "docs" / "pages" / "security.md"
KINDS: dict[str, Resource] = {
    "topic": "topic",
    "topics that begin with": "topic",
    "group": "group",
    "transactional ids that begin with": "transactional_id",
}
ROW = re.compile(rf"\| ({'|'.join(KINDS)}) `([\w-]+)` \| (\w+) \|.*\| an? (error|warning) \|")


class Row(NamedTuple):
    right: Right
    without_it: str

    def __str__(self) -> str:
        return str(self.right)


def rows(heading: str) -> list[Row]:
    """Of the table under a heading of the page, for topic `orders` and group `billing`."""
    text = PAGE.read_text().split(f"### {heading}\n", 1)[1].split("\n#", 1)[0]
    found = []
    for kind, name, operation, without_it in ROW.findall(text):
        found.append(Row(Right(KINDS[kind], name, operation, prefixed="begin" in kind), without_it))
    assert len(found) == text.count("\n| ") - 2, "a row that this does not understand"
    return found


def here(right: Right, topic: str, group: str) -> Right:
    """What the page says of `orders` and `billing`, of that topic and group."""
    name = right.name if right.resource == "topic" else right.name.replace("billing", group)
    return right._replace(name=name.replace("orders", topic))
