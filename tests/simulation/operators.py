"""An operator of one group: does what the commands do, by the object that they use, whether instances work or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kafetrain.core.control import Action
from kafetrain.deadletter import DeadLetters, Plan
from kafetrain.errors import KafetrainError
from kafetrain.settings import Settings
from kafetrain.testing.simulated import SimulatedClock, SimulatedCluster
from tests.simulation.stepped import InstanceClock

__all__ = ["OPERATIONS", "Operator"]

OPERATIONS = (Action.REPLAY, Action.RELEASE, Action.SKIP, Action.RETRY_NOW)


class Operator:
    """`close` it. `let_end`: called where it waits for transactions that are not over."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        topic: str,
        cluster: SimulatedCluster,
        clock: SimulatedClock,
        let_end: Callable[[], None],
    ) -> None:
        looking = InstanceClock(clock)
        looking.on_look = let_end
        self._letters = DeadLetters(settings, topic, cluster.client(name), clock=looking, wait=clock.advance)

    def plan(self, action: Action, key: bytes | None) -> Plan | None:
        """For one key, or for all (None). None: there is nothing to do, or nothing can be seen now."""
        choice: dict[str, Any] = {"all": True} if key is None else {"key": key}
        look: Callable[..., Plan] = getattr(self._letters, f"plan_{action.value.replace('-', '_')}")
        try:
            plan = look(**choice)
        except KafetrainError:
            return None
        return plan if plan.targets else None

    def carry_out(self, plan: Plan) -> None:
        """As far as brokers answer."""
        try:
            self._letters.carry_out(plan, by="operator", wait=False)
        except KafetrainError:
            pass

    def close(self) -> None:
        self._letters.close()
