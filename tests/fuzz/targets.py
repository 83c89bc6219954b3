"""What is fuzzed, by name. Each is a hypothesis test that takes its examples from whoever runs it."""

from __future__ import annotations

from collections.abc import Callable

from tests.fuzz.codecs import dead_letters, handler_views, ids, redirect_logs, retry_records
from tests.fuzz.dead_letter_topics import dead_letter_topics
from tests.fuzz.purpose import on_purpose
from tests.fuzz.redirect_topics import redirect_topics
from tests.fuzz.retry_topics import retry_topics

__all__ = ["CODECS", "LAYERS", "TARGETS", "Target"]

Target = Callable[[], None]


def _by_name(*tests: Target) -> dict[str, Target]:
    return {test.__name__: test for test in tests}


CODECS = _by_name(dead_letters, handler_views, ids, redirect_logs, retry_records)
LAYERS = _by_name(dead_letter_topics, on_purpose, redirect_topics, retry_topics)
TARGETS = CODECS | LAYERS
