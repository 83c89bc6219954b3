"""Every target with the same examples in each run: those that a search finds besides are added to the target."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from tests.fuzz.targets import CODECS, LAYERS, TARGETS
from tests.simulation.unhurried import loops_never_wait

pytestmark = pytest.mark.usefixtures("without_coverage")

EXAMPLES = {**dict.fromkeys(CODECS, 300), **dict.fromkeys(LAYERS, 100)}


@pytest.mark.parametrize("name", EXAMPLES)
def test_any_bytes_do_no_harm_and_are_counted(name: str) -> None:
    target = TARGETS[name]
    fixed = settings(
        max_examples=EXAMPLES[name],
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    with loops_never_wait():
        fixed(target)()
