"""Lanes: bounds, turns, and when what does not fit is to come again."""

from __future__ import annotations

from kafetrain.service.application.lanes import MOST_DEFERRAL_S, Lane, Lanes
from kafetrain.service.ports.store import Claim
from tests.unit.service.tasks import a_task


def claim(id: str, *, is_priority: bool = False) -> Claim:
    return Claim(a_task(id, is_priority=is_priority), "token")


def test_as_many_wait_as_may_run() -> None:
    lane = Lane(2)
    assert [lane.wait(claim(id)) for id in "abc"] == [True, True, False]


def test_priority_is_next_and_every_fourth_time_another() -> None:
    lane = Lane(8)
    for number in range(4):
        lane.wait(claim(f"n{number}"))
        lane.wait(claim(f"p{number}", is_priority=True))
    order = []
    while (one := lane.next()) is not None:
        order.append(one.task.id)
    assert order == ["p0", "p1", "p2", "n0", "p3", "n1", "n2", "n3"]


def test_deferrals_are_spread_at_twice_the_rate_of_the_lane() -> None:
    lane = Lane(10)
    for _ in range(100):
        lane.ended(2.0)
    # Five a second can be delivered, so ten are told to come: the hundredth has to wait for some 10 s.
    waits = [lane.deferral(1000.0) for _ in range(100)]
    assert waits == sorted(waits)
    assert 9.5 < waits[-1] < 10.5


def test_a_lane_that_knows_nothing_yet_hopes_for_the_best() -> None:
    lane = Lane(10)
    assert max(lane.deferral(0.0) for _ in range(2000)) < 1.0


def test_no_deferral_is_longer_than_a_minute() -> None:
    lane = Lane(1)
    for _ in range(100):
        lane.ended(30.0)
    assert max(lane.deferral(0.0) for _ in range(1000)) <= MOST_DEFERRAL_S


def test_idle_lanes_are_forgotten_and_busy_ones_are_not() -> None:
    lanes = Lanes()
    busy = lanes.get("busy", 1)
    busy.running = 1
    for number in range(20_000):
        lanes.get(f"host-{number}", 1)
    assert lanes.get("busy", 1) is busy
    assert len(lanes.all()) <= 10_001
