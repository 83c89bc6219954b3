"""The dispatcher: claims what is due, delivers it, writes down how that went.

    sleep until the next due time ─▶ claim ─▶ lane ─▶ deliver ─▶ finish
            ▲  (or until something nearer is accepted)               │
            └────────────────────────────────────────────────────────┘

A claim is renewed for as long as this process lives. After a kill its lease ends, and the task is due again: nothing
is lost, and what was under way may be delivered twice, with the same key.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from loguru import logger

from kafetrain.service.application.lanes import Lane, Lanes
from kafetrain.service.domain.task import Attempt, Task
from kafetrain.service.ports.destination import Delivery, DeliveryError, Destination
from kafetrain.service.ports.store import Claim, StoreError, TaskStore
from kafetrain.service.ports.telemetry import Telemetry

__all__ = ["Dispatcher", "DispatcherSettings"]

SEVERAL_SLOTS_S = 0.01
"""When all workers were busy: how long more of them are waited for, so that a claim is worth its round trip."""

STORE_AWAY_FIRST_S, STORE_AWAY_MOST_S = 0.05, 1.0
STUCK_AFTER_S = 30.0
MOST_HELD_CHARACTERS = 64_000_000
"""Of the messages of all claimed tasks: while there are more, none is claimed."""


@dataclass(frozen=True, slots=True)
class DispatcherSettings:
    workers: int
    poll_interval_s: float
    lease_s: float


class Dispatcher:
    """Runs in one event loop, from `start` to `stop`."""

    def __init__(
        self,
        store: TaskStore,
        destinations: Mapping[str, Destination],
        telemetry: Telemetry,
        settings: DispatcherSettings,
    ) -> None:
        self._store, self._destinations, self._telemetry = store, destinations, telemetry
        self._settings = settings
        self._lanes = Lanes()
        self._held: dict[int, Claim] = {}  # by identity: all that is claimed and not finished
        self._held_characters = 0
        self._deliveries: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._sleeps_until = float("inf")
        self._is_stopping = False
        self._loops: list[asyncio.Task[None]] = []
        self._alive_at = time.monotonic()

    def start(self) -> None:
        self._loops = [asyncio.create_task(self._run()), asyncio.create_task(self._renew())]
        for one in self._loops:
            one.add_done_callback(_say_if_it_failed)

    async def stop(self, grace_s: float) -> None:
        """Claim no more, give back what has not begun, and let what runs end within `grace_s`."""
        self._is_stopping = True
        self._wake.set()
        waiting: list[Claim] = []
        for lane in self._lanes.all():
            while (claim := lane.next()) is not None:
                waiting.append(claim)
        logger.info("stopping: {} tasks are given back, {} deliveries may end", len(waiting), len(self._deliveries))
        try:
            await self._finish(waiting, until=time.monotonic() + grace_s)
            if self._deliveries:
                await asyncio.wait(tuple(self._deliveries), timeout=grace_s)
        finally:
            for one in (*self._loops, *self._deliveries):
                one.cancel()
            await asyncio.gather(*self._loops, *self._deliveries, return_exceptions=True)
        if self._held:
            logger.warning("{} deliveries were cut off; they are repeated when their leases end", len(self._held))

    def wake(self, due_at: float) -> None:
        """Something is due then; it may be sooner than what is slept for."""
        if due_at < self._sleeps_until:
            self._wake.set()

    def check(self) -> None:
        """Raises `RuntimeError` where the loop has ended or hangs."""
        for one in self._loops:
            if one.done() and not self._is_stopping:
                raise RuntimeError("the delivery loop has ended")
        if time.monotonic() > self._alive_at + STUCK_AFTER_S + self._settings.poll_interval_s:
            raise RuntimeError("the delivery loop hangs")

    @property
    def in_flight(self) -> int:
        return len(self._held)

    # The loop

    async def _run(self) -> None:
        away_s = STORE_AWAY_FIRST_S
        while not self._is_stopping:
            self._alive_at = time.monotonic()
            self._wake.clear()
            if self._is_full():
                self._sleeps_until = float("-inf")  # only a free slot helps
                await self._sleep(self._settings.poll_interval_s)
                await asyncio.sleep(SEVERAL_SLOTS_S if self._settings.workers > 1 else 0)
                continue
            try:
                room = self._settings.workers - len(self._held)
                claimed = await self._store.claim(room, self._settings.lease_s)
            except StoreError as error:
                logger.warning("the store does not answer, deliveries wait: {}", error)
                self._sleeps_until = float("-inf")
                await self._sleep(away_s)
                away_s = min(away_s * 2, STORE_AWAY_MOST_S)
                continue
            away_s = STORE_AWAY_FIRST_S
            deferred = [claim for claim in claimed.claims if not self._begin(claim)]
            if deferred:
                await self._finish(deferred)
            if claimed.claims:
                await asyncio.sleep(0)
                continue
            wait_s = self._settings.poll_interval_s
            if claimed.next_due is not None:
                wait_s = min(wait_s, max(0.001, claimed.next_due - self._store.now() + 0.001))
            self._sleeps_until = self._store.now() + wait_s
            await self._sleep(wait_s)

    def _is_full(self) -> bool:
        return len(self._held) >= self._settings.workers or self._held_characters >= MOST_HELD_CHARACTERS

    async def _sleep(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except asyncio.TimeoutError:
            pass
        self._sleeps_until = float("inf")

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._settings.lease_s / 3)
            held = list(self._held.values())
            if not held:
                continue
            try:
                await self._store.renew(held, self._settings.lease_s)
            except StoreError as error:
                logger.warning("leases could not be renewed: {}", error)

    # One delivery

    def _begin(self, claim: Claim) -> bool:
        """Deliver it, or let it wait for its lane. False: it was deferred, and is to be written so."""
        self._held[id(claim)] = claim
        self._held_characters += len(claim.task.message_data)
        destination = self._destinations.get(claim.task.destination_type)
        if destination is None:  # its kind was installed when it was accepted
            logger.error("no destination of type {!r} is installed any more", claim.task.destination_type)
            claim.task.due_at = self._store.now() + 60.0
            return False
        lane = self._lanes.get(destination.lane(_target(claim.task)), destination.concurrency)
        if lane.is_free():
            self._deliver_soon(claim, lane, destination)
            return True
        if lane.wait(claim):
            return True
        now = self._store.now()
        claim.task.due_at = now + lane.deferral(now)
        return False

    def _deliver_soon(self, claim: Claim, lane: Lane, destination: Destination) -> None:
        lane.running += 1
        one = asyncio.create_task(self._deliver(claim, lane, destination))
        self._deliveries.add(one)
        one.add_done_callback(self._deliveries.discard)

    async def _deliver(self, claim: Claim, lane: Lane, destination: Destination) -> None:
        task, begun = claim.task, self._store.now()
        started = time.monotonic()  # also the breaker's clock: it must not stay open because somebody sets the other
        self._telemetry.begins(task, begun - task.due_at)
        to_dead = not task.has_retries_left()
        if not to_dead:
            task.increment_attempt()
        status: int | None = None
        error: DeliveryError | None = None
        try:
            with self._telemetry.span(
                "dead-letter" if to_dead else "deliver", task.trace, task_id=task.id, attempt=task.attempt
            ) as trace:
                delivery = Delivery(
                    task.dead_destination if to_dead else task.destination,
                    task.key(),
                    task.message_data,
                    task.client_id,
                    trace,
                )
                is_last = to_dead or not task.has_retries_left()
                if not is_last and not lane.breaker.allows(started):
                    raise DeliveryError(f"not tried, it was unreachable just now: {lane.breaker.last_error}")
                status = await destination.deliver(delivery)
                lane.breaker.reached()
        except DeliveryError as failure:
            error, status = failure, failure.status
            if not failure.reached:
                lane.breaker.unreachable(time.monotonic(), str(failure))
            elif status is not None:
                lane.breaker.reached()
        except Exception as bug:
            logger.opt(exception=True).error("a delivery failed unexpectedly")
            error = DeliveryError(f"unexpected {type(bug).__name__}")
        finally:
            lane.running -= 1
            if not self._is_stopping and (following := lane.next()) is not None:
                self._deliver_soon(following, lane, destination)
        seconds, now = time.monotonic() - started, self._store.now()
        lane.ended(seconds)
        to = "dead_destination" if to_dead else "destination"
        attempt = Attempt(task.attempt, to, begun, round(seconds, 6), status, None if error is None else str(error))
        if error is None:
            task.succeeded(attempt, now)
        else:
            task.failed(attempt, now, error.retry_after)
        self._telemetry.ended(task, attempt)
        _log(task, attempt)
        await self._finish([claim])
        if not task.state.is_final:
            self.wake(task.due_at)

    async def _finish(self, claims: list[Claim], until: float | None = None) -> None:
        """Write it down, however long the store is away: what is known must not be forgotten."""
        away_s = STORE_AWAY_FIRST_S
        while claims:
            try:
                await self._store.finish(claims)
                break
            except StoreError as error:
                if until is not None and time.monotonic() > until:
                    logger.warning("the store does not answer: {}", error)
                    return
                await asyncio.sleep(away_s)
                away_s = min(away_s * 2, STORE_AWAY_MOST_S)
        was_full = self._is_full()
        for claim in claims:
            if self._held.pop(id(claim), None) is not None:
                self._held_characters -= len(claim.task.message_data)
        if was_full or self._is_stopping:
            self._wake.set()


def _say_if_it_failed(loop: asyncio.Task[None]) -> None:
    if not loop.cancelled() and (error := loop.exception()) is not None:
        logger.opt(exception=error).error("a loop of the delivery has ended; the service should be restarted")


def _target(task: Task) -> Mapping[str, str | int]:
    return task.destination if task.has_retries_left() else task.dead_destination


def _log(task: Task, attempt: Attempt) -> None:
    bound = logger.bind(task_id=task.id, attempt=task.attempt, max_retries=task.max_retries)
    if attempt.error is None:
        bound.debug("delivered" if attempt.to == "destination" else "delivered to the dead destination")
    elif attempt.to == "destination":
        bound.info("delivery failed: {}", attempt.error)
    else:
        bound.warning("the dead destination failed, the task is kept: {}", attempt.error)
