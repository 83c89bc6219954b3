"""Search with atheris, which changes bytes until they reach new code: `python -m tests.fuzz TARGET [for libFuzzer]`.

python -m tests.fuzz redirect_logs -max_total_time=600
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from loguru import logger

__all__: list[str] = []

MISSING = "atheris is not installed: pip install 'kafetrain[fuzz]' (there are wheels for Linux)"


LONG_AT_ONCE = ("-len_control=0", "-max_len=4096")
"""What hypothesis makes of a few bytes is an example that is too short to be one."""


def main() -> None:
    try:
        import atheris
    except ImportError:
        sys.exit(MISSING)
    with atheris.instrument_imports(include=["kafetrain"]):
        from tests.fuzz.targets import TARGETS
        from tests.simulation.unhurried import loops_never_wait
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", choices=sorted(TARGETS))
    chosen, for_libfuzzer = parser.parse_known_args()
    target: Any = TARGETS[chosen.target]
    logger.remove()
    with loops_never_wait():
        atheris.Setup([sys.argv[0], *LONG_AT_ONCE, *for_libfuzzer], target.hypothesis.fuzz_one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
