"""Where the extra is not installed, one sentence says which one."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
    ("blocked", "arguments", "said"),
    [
        (["uvicorn", "fastapi"], ["serve"], "pip install 'kafetrain[service]'"),
        (["httpx"], ["tasks", "list"], "pip install 'kafetrain[service]'"),
        (["redis"], ["serve", "--store", "redis://localhost"], "pip install 'kafetrain[service,redis]'"),
    ],
)
def test_a_missing_extra_is_one_sentence(blocked: list[str], arguments: list[str], said: str) -> None:
    code = BLOCKED.format(blocked=blocked, arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
