"""Where the extra is not installed, one sentence says which one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from kafka.errors import UnsupportedCodecError

from kafetrain.client.kafka_python_errors import client_error

BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
sys.argv = ["kafetrain", *{arguments!r}]
from kafetrain.cli import main
main()
"""


@pytest.mark.parametrize(
    ("blocked", "arguments", "environment", "said"),
    [
        (["uvicorn", "fastapi"], ["serve"], {}, "pip install 'kafetrain[service]'"),
        (["httpx"], ["tasks", "list"], {}, "pip install 'kafetrain[service]'"),
        (["redis"], ["serve", "--store", "redis://localhost"], {}, "pip install 'kafetrain[service,redis]'"),
        (["zstandard"], ["serve"], {"KAFKA_COMPRESSION": "zstd"}, "zstandard: pip install 'kafetrain[compression]'"),
        (
            ["lz4"],
            ["locks", "orders", "--group", "billing"],
            {"KAFETRAIN_CLIENT_OPTIONS": '{"compression_type": "lz4"}'},
            "compression_type needs the package lz4: pip install 'kafetrain[compression]'",
        ),
    ],
)
def test_a_missing_extra_is_one_sentence(
    blocked: list[str], arguments: list[str], environment: dict[str, str], said: str
) -> None:
    code, env = BLOCKED.format(blocked=blocked, arguments=arguments), {**os.environ, **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False, timeout=90
    )
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_what_another_program_has_compressed_names_the_extra_that_reads_it() -> None:
    error = client_error(UnsupportedCodecError("Libraries for zstd compression codec not found"), "polling")
    assert "zstd" in str(error)
    assert str(error).endswith("pip install 'kafetrain[compression]'")
