"""As `test_kill`, with `delivery="transactional"`: and nothing is twice in the topics."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial

import pytest

from tests.integration.faults.kills import Case, play, played_side_by_side
from tests.integration.faults.worker import Point
from tests.integration.twice import nothing_twice

pytestmark = pytest.mark.kafka

CASES = (
    Case(Point.HANDLER, nth=12),
    Case(Point.BEFORE_LOCK),
    Case(Point.BEFORE_RETRY_RECORD),
    Case(Point.BEFORE_SOURCE_COMMIT),
    Case(Point.BEFORE_END_OF_TRANSACTION, nth=2),
    Case(Point.BEFORE_END_OF_TRANSACTION, nth=7, free_on_dlq=True),
    Case(Point.AFTER_END_OF_TRANSACTION, nth=2, free_on_dlq=True),
    Case(Point.AFTER_END_OF_TRANSACTION, nth=7),
    Case(Point.RETRY_HANDLER),
    Case(Point.BEFORE_NEXT_ATTEMPT),
    Case(Point.BEFORE_TOMBSTONE),
    Case(Point.BEFORE_RETRY_COMMIT),
    Case(Point.BEFORE_END_OF_DEAD),
    Case(Point.BEFORE_END_OF_DEAD, free_on_dlq=True),
    Case(Point.BEFORE_END_OF_PARKED),
    Case(Point.BEFORE_END_OF_TRANSACTION, nth=7, client="confluent"),
    Case(Point.AFTER_END_OF_TRANSACTION, nth=2, free_on_dlq=True, client="confluent"),
)


played = played_side_by_side(partial(play, check=nothing_twice, delivery="transactional"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_after_a_kill_nothing_is_lost_or_out_of_order_or_twice_in_the_topics(
    case: Case, played: Mapping[Case, Future[None]]
) -> None:
    played[case].result()
