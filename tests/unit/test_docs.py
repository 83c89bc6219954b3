"""The documentation says what the code does: names, defaults, messages and excerpts are compared, not trusted."""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic_core import PydanticUndefined

import kafetrain
import kafetrain.testing
from kafetrain import cli, errors
from kafetrain.client import confluent, kafka_python
from kafetrain.core.headers import DeadLetterState
from kafetrain.durations import format_duration
from kafetrain.outcome import Outcome
from kafetrain.record import DlqHeader, RetryHeader
from kafetrain.settings import Settings
from tests.benchmarks.locks import sizes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = ROOT / "docs" / "pages"
EXAMPLES = ROOT / "examples"
FENCE = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
TEXTS = [README, ROOT / "CHANGELOG.md", *sorted(PAGES.glob("*.md"))]


def fences(path: Path, language: str) -> list[tuple[str | None, str]]:
    """The fenced blocks of a language, each with the comment before it."""
    found = FENCE.finditer(path.read_text())
    return [(match["mark"], match["text"]) for match in found if match["language"] == language]


def rows(path: Path, first: str) -> dict[str, list[str]]:
    """The rows of all tables whose first column is called `first`, by their first cell."""
    found: dict[str, list[str]] = {}
    inside = False
    for line in path.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        inside = line.startswith("|") and (inside or cells[0] == first)
        if inside:
            found[cells[0].strip("`")] = cells[1:]
    return found


# Settings


def default_text(name: str) -> str:
    """A setting's default as the documentation writes it."""
    value = Settings.model_fields[name].get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return "not set"
    if value == ():
        return "nothing"
    if isinstance(value, timedelta):
        value = format_duration(value)
    elif isinstance(value, int) and value % 2**20 == 0 and value:
        value = f"{value // 2**20}MiB"
    elif isinstance(value, list):
        value = ",".join(value)
    elif isinstance(value, tuple):
        value = ",".join(item.__name__ for item in value)
    elif value == kafetrain.ExponentialBackoff():
        value = "ExponentialBackoff()"
    return f"`{value}`"


@pytest.mark.parametrize("path", [README, PAGES / "settings.md"], ids=lambda path: path.name)
def test_every_setting_is_listed_with_its_default(path: Path) -> None:
    listed = {name: cells[0] for name, cells in rows(path, "setting").items() if name in Settings.model_fields}
    assert listed == {name: default_text(name) for name in Settings.model_fields}


@pytest.mark.parametrize("path", [README, PAGES / "settings.md"], ids=lambda path: path.name)
def test_no_setting_is_listed_that_does_not_exist(path: Path) -> None:
    assert rows(path, "setting").keys() - {"setting", "---", *Settings.model_fields} == set()


def test_every_option_of_a_client_that_no_user_may_set_is_named() -> None:
    _, text = (PAGES / "settings.md").read_text().split("## What kafetrain sets itself\n")
    named = set(re.findall(r"`([^`]+)`", text))
    assert kafka_python.OWNED_OPTIONS - named == set()
    assert confluent.OWNED_OPTIONS - named - {name.replace("_", ".") for name in named} == set()


# Figures


def test_the_bytes_that_a_redirect_writes_are_what_the_benchmark_counts() -> None:
    listed = rows(PAGES / "benchmarks.md", "record")
    assert {name: int(listed[name][0]) for name in sizes()} == sizes()
    text = (PAGES / "scaling.md").read_text()
    assert [size for size in sizes().values() if f"| {size} " not in text] == []


def test_the_memory_of_a_lock_is_the_same_on_both_pages() -> None:
    text = (PAGES / "scaling.md").read_text()
    weighed = [cells[0] for name, cells in rows(PAGES / "benchmarks.md", "locks of each key").items() if name.isdigit()]
    assert [size for size in weighed if f"{size} bytes each" not in text] == []


# Names


def names_of(catalogue: type) -> list[str]:
    return [value for name, value in vars(catalogue).items() if name.isupper()]


def test_every_header_is_described() -> None:
    listed = rows(PAGES / "headers.md", "header").keys() - {"header", "---"}
    assert listed == {*names_of(RetryHeader), *names_of(DlqHeader)}


def test_every_state_of_a_dead_letter_is_described() -> None:
    for page in ("headers.md", "dead-letters.md"):
        assert [state for state in names_of(DeadLetterState) if f"`{state}`" not in (PAGES / page).read_text()] == []


def test_every_public_name_is_described() -> None:
    text = (PAGES / "api.md").read_text()
    assert [name for name in kafetrain.__all__ if not re.search(rf"\b{name}\b", text)] == []
    text = (PAGES / "testing.md").read_text()
    assert [name for name in kafetrain.testing.__all__ if not re.search(rf"\b{name}\b", text)] == []


def test_every_error_is_described() -> None:
    text = (PAGES / "api.md").read_text()
    classes = [name for name in errors.__all__ if name[0].isupper()]
    assert [name for name in classes if not re.search(rf"\b{name}\b", text)] == []


def test_every_outcome_is_described() -> None:
    text = (PAGES / "api.md").read_text()
    assert [outcome.name for outcome in Outcome if f"`{outcome.name}`" not in text] == []


def commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, inner in command.commands.items():
        yield from commands(inner, f"{path} {name}")


def test_every_command_has_a_section() -> None:
    headings = re.findall(r"^## (kafetrain .*)$", (PAGES / "cli.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(path for path, _ in commands(typer.main.get_command(cli.app), "kafetrain"))


def test_every_option_of_a_command_is_described() -> None:
    text = (PAGES / "cli.md").read_text()
    for path, command in commands(typer.main.get_command(cli.app), "kafetrain"):
        options = [name for one in command.params if not getattr(one, "hidden", False) for name in one.opts]
        assert [name for name in options if name[:2] == "--" and not re.search(rf"{name}\b", text)] == [], path


# Messages


@cache
def messages() -> list[str]:
    """Every text in the package, with `…` where something is put in, and `{}` of log events likewise."""
    found = []
    for path in sorted((ROOT / "kafetrain").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value.replace("{}", "…").replace("{{", "{").replace("}}", "}"))
    return found


def is_said(text: str) -> bool:
    """Does the package have a message with these pieces, in this order?"""
    pieces = [re.escape(piece.strip()) for piece in text.split("…") if piece.strip()]
    pattern = re.compile(".*".join(pieces), re.DOTALL)
    return any(pattern.search(message) for message in messages())


def test_troubleshooting_quotes_messages_that_exist() -> None:
    headings = re.findall(r"^### (.*?)(?: \{#.*\})?$", (PAGES / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(headings) > 20
    about_nothing = "… stopped, and nothing is logged"
    assert [heading for heading in headings if heading != about_nothing and not is_said(heading)] == []


def test_operations_quotes_log_events_that_exist() -> None:
    quoted = [cell for cell in rows(PAGES / "operations.md", "event") if cell not in ("event", "---")]
    events = [event for cell in quoted for event in re.split(r"`, `", cell)]
    assert len(events) > 8
    # Said as "record {}" with the outcome's value.
    assert [event for event in events if event != "record dead-lettered" and not is_said(event)] == []


# Packages


def test_every_package_that_is_installed_along_is_named() -> None:
    text = (PAGES / "requirements.md").read_text().lower()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [re.split(r"[^\w-]", line, maxsplit=1)[0] for line in project["dependencies"]]
    assert len(needed) > 5
    assert [name for name in needed if name.lower() not in text] == []


# Code


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_python_snippets_compile(path: Path) -> None:
    for _, text in fences(path, "python"):
        if not text.startswith("--8<--"):
            compile(textwrap.dedent(text), str(path), "exec")


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_what_is_imported_from_kafetrain_exists(path: Path) -> None:
    for _, text in fences(path, "python"):
        if text.startswith("--8<--"):
            continue
        for node in ast.walk(ast.parse(textwrap.dedent(text))):
            if isinstance(node, ast.ImportFrom) and node.module == "kafetrain":
                assert [alias.name for alias in node.names if alias.name not in kafetrain.__all__] == []


def meaningful(text: str) -> list[str]:
    """Lines without indentation and without comments of their own; `...` stands for what was left out."""
    stripped = [line.strip() for line in text.splitlines()]
    return [line for line in stripped if line and not line.startswith(("...", "#"))]


def without_comment(line: str) -> str:
    return line.split("  # ", 1)[0]


@pytest.mark.parametrize("path", [README, PAGES / "layers.md"], ids=lambda path: path.name)
def test_excerpts_are_of_the_examples(path: Path) -> None:
    """Each line of an excerpt is in the example that it names, in the same order. So it is code that the tests run."""
    excerpts = [(mark, text) for mark, text in fences(path, "python") if mark and mark.startswith("examples/")]
    assert len(excerpts) >= 4
    for mark, text in excerpts:
        lines = iter([without_comment(line) for line in meaningful((ROOT / str(mark)).read_text())])
        missing = [line for line in meaningful(text) if without_comment(line) not in lines]
        assert missing[:1] == [], f"{path.name}: not in {mark}, or not in this order"


def test_every_example_is_shown() -> None:
    shown = set(re.findall(r'--8<-- "examples/(\w+\.py)"', (PAGES / "examples.md").read_text()))
    assert shown == {path.name for path in EXAMPLES.glob("*.py")}


def test_the_readme_has_two_commands_and_marks_the_one_that_tests() -> None:
    commands = fences(README, "sh")
    assert [len(text.splitlines()) for _, text in commands] == [1, 1]
    assert [mark for mark, _ in commands] == [None, "test-command"]
    assert commands[0][1].endswith("kafetrain demo\n")


def test_links_of_the_readme_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#]+)(?:#[^)]*)?\)", README.read_text())
    assert [target for target in targets if not (ROOT / target).exists()] == []
