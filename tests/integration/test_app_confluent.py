"""Apps of the confluent client. What they send, and the topics that a pattern means, are kafka-python's to do."""

from __future__ import annotations

import pytest

from tests.integration.test_app import make_app as make_app
from tests.integration.test_app import (
    test_each_record_goes_to_the_handler_of_its_topic_and_is_retried_with_that_ones_settings,
    test_handlers_publish_middlewares_stand_around_and_hooks_enclose_it_all,
    test_without_retry_what_fails_is_not_committed_and_runs_again_also_after_a_restart,
)

__all__ = [
    "test_each_record_goes_to_the_handler_of_its_topic_and_is_retried_with_that_ones_settings",
    "test_handlers_publish_middlewares_stand_around_and_hooks_enclose_it_all",
    "test_without_retry_what_fails_is_not_committed_and_runs_again_also_after_a_restart",
]

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka


@pytest.fixture
def library() -> str:
    return "confluent"
