"""The API's description: as the app has it, and as the app behaves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml

from tests.integration.service.harness import ROOT, Service

FILE = ROOT / "docs" / "openapi.yaml"
EXAMPLES = 20


def test_the_file_is_what_the_app_says(service: Service) -> None:
    """`KAFETRAIN_WRITE_OPENAPI=1` writes it anew."""
    found = service.http.get("/openapi.json").json()
    text = yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=120)
    if os.environ.get("KAFETRAIN_WRITE_OPENAPI"):
        FILE.write_text(text)
    assert yaml.safe_load(FILE.read_text()) == found


def test_every_operation_is_described(service: Service) -> None:
    paths = service.http.get("/openapi.json").json()["paths"]
    assert {(path, method) for path, operations in paths.items() for method in operations} == {
        ("/tasks", "get"),
        ("/tasks", "post"),
        ("/tasks/batch", "post"),
        ("/tasks/{id}", "get"),
        ("/tasks/{id}", "delete"),
        ("/tasks/{id}/retry-now", "post"),
        ("/tasks/{id}/replay", "post"),
        ("/health", "get"),
        ("/ready", "get"),
        ("/metrics", "get"),
    }


def test_the_app_behaves_as_it_is_described(service: Service, tmp_path: Path) -> None:
    """Requests made up from the description, right and wrong ones: none fails, every answer is a described one.

    What the description cannot say is which destinations the operator allows; so right requests may be refused.
    """
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{service.url}/openapi.json"),
            *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),
            *("--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES)),
            *("--seed", "8", "--generation-deterministic", "--no-color"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "unexpected" not in service.log_text()
