"""What runs while a tracker tracks: three clients and two loops with a thread each, built together or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from loguru import logger

from kafetrain.client.own_consumer import Deferrals
from kafetrain.client.ports import Client, ClientError, ConsumerPort
from kafetrain.clock import Clock
from kafetrain.record import TopicPartition
from kafetrain.settings import Settings
from kafetrain.threads import LoopThread
from kafetrain.tracker.hooks import Hooks
from kafetrain.tracker.own_loops import OwnRetryLoop
from kafetrain.tracker.reader import RedirectReader
from kafetrain.tracker.sequence import Sequencer
from kafetrain.tracker.source_path import SourcePath
from kafetrain.tracker.state import Claim, TrackerState
from kafetrain.tracker.transactor import Carrying, Transactor
from kafetrain.tracker.write_path import AcknowledgedWrites, WritePath
from kafetrain.tracker.writes import Writes

__all__ = ["Parts"]

AT_LEAST_S = 1.0
"""For a thread to end that has nothing to wait for, however long writes were waited for."""


class Parts:
    """Building connects; where that fails, nothing is left open. `start` starts the threads.

    `max_wait`: what one step of a loop waits at most for something to do.
    """

    def __init__(
        self,
        client: Client,
        state: TrackerState,
        settings: Settings,
        clock: Clock,
        hooks: Hooks,
        max_wait: timedelta = timedelta(milliseconds=100),
    ) -> None:
        undo: list[Callable[[], None]] = []
        try:
            self.admin = client.admin()
            undo.append(self.admin.close)
            consumer = client.reader()
            undo.append(consumer.close)
            self.producer = client.producer()
        except BaseException:
            for close in reversed(undo):
                close()
            raise
        self.settings, self.clock, self._hooks = settings, clock, hooks
        self._client, self._state = client, state
        self.sequencer = Sequencer(max_wait)
        self.writes = Writes(self.producer, state, settings, clock, self.limit_of, hooks)
        self.reader = RedirectReader(state, consumer, self.admin, settings, clock, max_wait)
        self.source = SourcePath(state, self.writes, self.sequencer, settings, clock)
        self.own_loop = OwnRetryLoop(state, self.writes, self.sequencer, settings, clock, self.end_of)
        self.deferrals = Deferrals()
        self._acknowledged = AcknowledgedWrites(self.writes, self.sequencer)
        self._threads = [
            LoopThread(self.sequencer, "kafetrain-writes", self._failed),
            LoopThread(self.reader, "kafetrain-redirects", self._failed),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()
        self._hooks.start()

    def path_of(self, claim: Claim) -> WritePath:
        """Where writes for a claimed partition go."""
        return claim.path or self._acknowledged

    def transactor(self, consumer: ConsumerPort, carrying: Carrying) -> Transactor | None:
        """For what this group consumer's partitions lead to, to be started; None where delivery is at least once."""
        if self.settings.delivery != "transactional":
            return None
        transactor = Transactor(self._client, consumer, carrying, self.settings.group_id, self.clock, self._failed)
        transactor.writes = Writes(
            transactor,
            self._state,
            self.settings,
            self.clock,
            self.limit_of,
            self._hooks,
            transactor.when_durable,
            atomic=True,
        )
        return transactor

    def _failed(self, error: BaseException) -> None:
        with self._state.changed:
            self._state.error = error
            self._state.changed.notify_all()

    def end_of(self, redirect: TopicPartition) -> int:
        """The redirect partition's end offset, as the brokers have it now. A request of its own, by any thread."""
        return self.admin.end_offsets([redirect])[redirect]

    def limit_of(self, topic: str) -> int | None:
        """The topic's max.message.bytes, as the brokers have it now; None where they do not tell. Any thread."""
        try:
            limit = self.admin.topic_configs([topic])[topic].get("max.message.bytes", "")
        except (ClientError, KeyError):
            return None
        return int(limit) if limit.isdecimal() else None

    def close(self, timeout: timedelta) -> None:
        """Ask all to stop, then wait for all. The reader closes its consumer itself."""
        deadline = time.monotonic() + timeout.total_seconds()
        self.deferrals.close()
        if not self.sequencer.wait_idle(timeout.total_seconds()):
            # As in a crash: what they belong to is not complete, and comes again.
            logger.warning("closing with writes under way")
        for thread in self._threads:
            thread.request_stop()
        for thread in self._threads:
            thread.join(max(AT_LEAST_S, deadline - time.monotonic()))
        self._hooks.close()
        self.producer.close(timedelta(seconds=max(0.0, deadline - time.monotonic())))
        self.admin.close()
