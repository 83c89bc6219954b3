"""Which Kafka library the clients under test use: `KAFETRAIN_TEST_CLIENT`, kafka-python or confluent.

Tests name options as kafka-python does; here they get the names that the library has for them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

__all__ = ["library_under_test", "named_for"]


def library_under_test() -> str:
    """The default where a test does not say."""
    return os.environ.get("KAFETRAIN_TEST_CLIENT") or "kafka-python"


def named_for(library: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """kafka-python's options by the names of `library`. An assignor can only be the cooperative one."""
    if library != "confluent":
        return dict(options)
    return {
        name.replace("_", "."): value if isinstance(value, (int, str)) else "cooperative-sticky"
        for name, value in options.items()
    }
