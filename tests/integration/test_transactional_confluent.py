"""Transactions of the confluent client: what has to hold with the other one has to hold with this one."""

from __future__ import annotations

import pytest

from tests.integration.test_transactional import (
    test_a_record_that_is_too_large_stops_the_consumer_and_the_others_with_it_are_written,
    test_a_stop_leaves_no_thread_and_no_transaction,
    test_an_answer_that_is_lost_is_asked_for_and_nothing_is_twice,
    test_two_instances_hand_partitions_over_and_nothing_is_twice,
    test_what_fails_together_shares_transactions,
)
from tests.integration.test_transactional import transactional as transactional

__all__ = [
    "test_a_record_that_is_too_large_stops_the_consumer_and_the_others_with_it_are_written",
    "test_a_stop_leaves_no_thread_and_no_transaction",
    "test_an_answer_that_is_lost_is_asked_for_and_nothing_is_twice",
    "test_two_instances_hand_partitions_over_and_nothing_is_twice",
    "test_what_fails_together_shares_transactions",
]

pytest_plugins = ["tests.integration.cluster"]
pytestmark = [pytest.mark.kafka, pytest.mark.usefixtures("transactional")]


@pytest.fixture
def library() -> str:
    return "confluent"
