"""A process is killed between two steps of the protocol; the next one goes on, and no promise is broken."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future

import pytest

from tests.integration.faults.kills import Case, play, played_side_by_side
from tests.integration.faults.worker import Point

pytestmark = pytest.mark.kafka

CASES = (
    Case(Point.HANDLER, nth=12),
    Case(Point.BEFORE_LOCK),
    Case(Point.BEFORE_RETRY_RECORD),
    Case(Point.BEFORE_SOURCE_COMMIT, nth=1),
    Case(Point.RETRY_HANDLER),
    Case(Point.BEFORE_NEXT_ATTEMPT),
    Case(Point.BEFORE_TOMBSTONE),
    Case(Point.BEFORE_RETRY_COMMIT, nth=1),
    Case(Point.BEFORE_END_OF_DEAD),
    Case(Point.BEFORE_END_OF_DEAD, free_on_dlq=True),
    Case(Point.BEFORE_END_OF_PARKED),
)


played = played_side_by_side(play)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_after_a_kill_the_next_process_loses_nothing_and_keeps_the_order(
    case: Case, played: Mapping[Case, Future[None]]
) -> None:
    played[case].result()
