"""Managed consumers of the confluent client: what is declared is declared to librdkafka too."""

from __future__ import annotations

import pytest

from tests.integration.test_managed import declare as declare
from tests.integration.test_managed import registry as registry
from tests.integration.test_managed import (
    test_a_record_above_max_message_bytes_is_delivered_all_the_same,
    test_a_slow_handler_is_warned_of_and_costs_neither_membership_nor_memory,
    test_a_switch_that_is_flipped_under_load_loses_nothing_and_keeps_the_order,
    test_read_uncommitted_delivers_what_was_aborted,
    test_the_declared_strategy_is_what_the_group_agrees_on,
)

__all__ = [
    "test_a_record_above_max_message_bytes_is_delivered_all_the_same",
    "test_a_slow_handler_is_warned_of_and_costs_neither_membership_nor_memory",
    "test_a_switch_that_is_flipped_under_load_loses_nothing_and_keeps_the_order",
    "test_read_uncommitted_delivers_what_was_aborted",
    "test_the_declared_strategy_is_what_the_group_agrees_on",
]

pytest_plugins = ["tests.integration.cluster"]
pytestmark = pytest.mark.kafka


@pytest.fixture
def library() -> str:
    return "confluent"
