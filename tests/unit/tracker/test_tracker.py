"""A tracker as a whole, over a cluster in memory."""

from __future__ import annotations

import threading
from typing import Any

from kafetrain import ErrorTracker, Settings
from kafetrain.testing.simulated import SimulatedCluster


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
