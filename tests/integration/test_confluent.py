"""The confluent client under the layers: what has to hold with the other one has to hold with this one.

`KAFETRAIN_TEST_CLIENT=confluent` runs every test here with it; these run always.
"""

from __future__ import annotations

import pytest

from tests.integration.test_dead_letters import (
    test_an_exhausted_record_is_dead_lettered_whole_with_the_reason_of_its_last_failure,
    test_what_follows_a_dead_record_is_parked_behind_it_in_order_and_runs_never,
)
from tests.integration.test_retries import (
    test_a_retried_record_looks_like_its_source_record,
    test_many_keys_with_many_failures_keep_their_order_and_leave_nothing_behind,
    test_one_consumer_handles_several_topics_each_with_retries_of_its_own,
    test_records_of_a_key_are_handled_to_the_end_in_their_order_however_often_each_fails,
)

__all__ = [
    "test_a_retried_record_looks_like_its_source_record",
    "test_an_exhausted_record_is_dead_lettered_whole_with_the_reason_of_its_last_failure",
    "test_many_keys_with_many_failures_keep_their_order_and_leave_nothing_behind",
    "test_one_consumer_handles_several_topics_each_with_retries_of_its_own",
    "test_records_of_a_key_are_handled_to_the_end_in_their_order_however_often_each_fails",
    "test_what_follows_a_dead_record_is_parked_behind_it_in_order_and_runs_never",
]

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka


@pytest.fixture
def library() -> str:
    return "confluent"
