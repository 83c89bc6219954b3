"""Processes that are run side by side: when one ends, all do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kafetrain.app.children import run_workers

ROOT = Path(__file__).parents[3]


def test_when_one_ends_all_end_with_its_exit_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.upper().startswith(("KAFKA_", "KAFETRAIN_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    assert run_workers(["config", "check"], 2) == 2
    assert run_workers(["--version"], 2) == 0
