"""The service's documentation: settings, states, metrics and statuses as the code has them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from kafetrain.durations import format_duration
from kafetrain.service.adapters.telemetry import ServiceTelemetry
from kafetrain.service.domain.task import State
from kafetrain.service.settings import ServiceSettings

PAGES = Path(__file__).parents[3] / "docs" / "pages"


def default_text(name: str) -> str:
    value = ServiceSettings.model_fields[name].get_default(call_default_factory=True)
    if value is None:
        return "not set"
    if value in ((), {}):
        return "nothing"
    if isinstance(value, timedelta):
        value = format_duration(value)
    elif isinstance(value, tuple):
        value = ",".join(value)
    elif isinstance(value, int) and value >= 65_536 and value % 1024 == 0:
        value = f"{value // 2**20}MiB" if value % 2**20 == 0 else f"{value // 1024}KiB"
    return f"`{value}`"


def test_every_setting_is_listed_with_its_default() -> None:
    listed = {}
    for line in (PAGES / "service-settings.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            listed[cells[0].strip("`").lower()] = cells[1]
    assert listed == {name: default_text(name) for name in ServiceSettings.model_fields}


def test_every_state_is_described() -> None:
    text = (PAGES / "service.md").read_text()
    assert [state.value for state in State if f"| `{state.value}` |" not in text] == []


def test_every_metric_is_described() -> None:
    text = (PAGES / "service-production.md").read_text()
    exposed = ServiceTelemetry(["http"]).exposition(dict.fromkeys(State, 0), 0).decode()
    names = {line.split(" ")[2] for line in exposed.splitlines() if line.startswith("# TYPE")}
    assert {name for name in names if f"`{name}" not in text and not name.endswith("_created")} == set()
