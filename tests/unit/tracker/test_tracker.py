"""A tracker as a whole, over a cluster in memory."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from kafetrain import ErrorTracker, Settings
from kafetrain.testing.simulated import SimulatedCluster
from kafetrain.topics import AuxiliaryTopics
from kafetrain.tracker.state import Side


class Building:
    """A client. While its first admin is built, another thread asks for what is built."""

    def __init__(self, client: Any, meanwhile: threading.Thread) -> None:
        self._client, self._meanwhile = client, meanwhile
        self.built = 0
        self._again = threading.Event()

    def admin(self) -> Any:
        self.built += 1
        if self.built == 1:
            self._meanwhile.start()
            self._again.wait(0.2)  # it comes at once where it comes at all
        else:
            self._again.set()
        return self._client.admin()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def test_threads_that_begin_to_track_at_the_same_time_share_what_is_built() -> None:
    """Two readers of one log would undo what the other knows."""
    cluster = SimulatedCluster()
    for topic in ("orders", "payments"):
        cluster.create_topic(topic)
    other = threading.Thread(target=lambda: tracker.start_tracking("payments"), daemon=True)
    client: Any = Building(cluster.client("one"), other)
    with ErrorTracker(Settings(group_id="g"), client=client) as tracker:
        tracker.start_tracking("orders")
        other.join()
        assert client.built == 1
        assert {tracker.get_retry_topic(topic) for topic in ("orders", "payments")} == {
            "retry-orders",
            "retry-payments",
        }


def test_a_layer_may_take_a_side_while_another_topic_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = SimulatedCluster()
    cluster.create_topic("orders")
    with ErrorTracker(Settings(group_id="g"), client=cluster.client("one")) as tracker:
        tracker.start_tracking("orders")
        state, release = tracker.state, tracker.state.release
        begins = threading.Thread(target=lambda: state.add_topic(another), daemon=True)
        another = replace(state.topic("orders"), names=AuxiliaryTopics.of(tracker.settings, "payments"))

        def release_meanwhile(*of: Any) -> None:
            begins.start()
            begins.join(0.2)  # it waits for nobody, or until the sides are set
            release(*of)

        monkeypatch.setattr(state, "release", release_meanwhile)
        tracker.track_by_assignment(Side.SOURCE)
        begins.join()
        assert not state.source_claims
        monkeypatch.undo()
